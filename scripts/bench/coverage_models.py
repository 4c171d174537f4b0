"""The models of `coverage.py`: by name, with random weights, in evaluation mode, and example inputs for each."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["NAMES", "build"]

_TORCHVISION = """
    alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet1_0 mobilenet_v2
    mobilenet_v3_small regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 swin_t vgg11 vit_b_16
    fcn_resnet50 deeplabv3_mobilenet_v3_large
"""
_TIMM = """
    resnet18 resnest14d resnet26t ecaresnet26t skresnet18 res2net50_14w_8s dla34 hrnet_w18_small_v2 cspresnet50
    vovnet39a dpn68 ghostnet_100 mobilenetv3_small_100 mobilenetv4_conv_small mobileone_s0 repvgg_a0
    tf_efficientnet_lite0 mixnet_s lcnet_050 regnety_002 nf_resnet26 dm_nfnet_f0 inception_v4 xception41 selecsls42
    convnext_atto convnextv2_atto inception_next_atto fasternet_t0 edgenext_xx_small mobilevit_xxs mobilevitv2_050
    efficientformer_l1 efficientformerv2_s0 fastvit_t8 repvit_m0_9 starnet_s1 levit_128s tiny_vit_5m_224
    efficientvit_b0 efficientvit_m0 deit_tiny_patch16_224 vit_tiny_patch16_224 eva02_tiny_patch14_224
    beit_base_patch16_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 coat_tiny pvt_v2_b0 poolformer_s12
    convformer_s18 mixer_s16_224 gmixer_24_224 resmlp_12_224 xcit_nano_12_p16_224 twins_pcpvt_small
    maxvit_nano_rw_256 coatnet_nano_rw_224 crossvit_tiny_240 halonet26t volo_d1_224 nest_tiny hiera_tiny_224
    rexnet_100 hardcorenas_a focalnet_tiny_srf davit_tiny
"""
_TRANSFORMERS = ["bert", "distilbert", "roberta", "gpt2", "llama", "vit", "whisper_encoder", "wav2vec2_features"]
NAMES = [
    *(f"torchvision/{name}" for name in _TORCHVISION.split()),
    *(f"timm/{name}" for name in _TIMM.split()),
    *(f"transformers/{name}" for name in _TRANSFORMERS),
]


def build(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The model (evaluation mode) and its example inputs (batch 1)."""
    library, _, model = name.partition("/")
    made, inputs = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[library](model)
    for module in made.modules():  # a layer of zeros, as some heads begin with, would hide every error before it
        weight = getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and weight is not None and not weight.any():
            torch.nn.init.normal_(module.weight, std=0.02)
    return made.eval(), inputs


def _declare_torchvision_operators() -> Any:
    """torchvision's own operators are compiled for CUDA; these models do not use them, they only must exist."""
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


_LIBRARY = _declare_torchvision_operators()


def _torchvision(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    import torchvision

    options: dict[str, Any] = {"weights": None}
    if name.startswith(("fcn", "deeplab")):
        options["weights_backbone"] = None
    if name in {"googlenet", "inception_v3"}:
        options |= {"init_weights": False}
    size = 299 if name == "inception_v3" else 224
    return torchvision.models.get_model(name, **options), (torch.randn(1, 3, size, size),)


def _timm(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    import timm

    model = timm.create_model(name, pretrained=False)
    return model, (torch.randn(1, *model.default_cfg["input_size"]),)


class _Tensors(torch.nn.Module):
    """The one tensor of a model's output that is wanted."""

    def __init__(self, model: torch.nn.Module, output: str, argument: str | None = None) -> None:
        super().__init__()
        self.model, self.output, self.argument = model, output, argument

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.model(x) if self.argument is None else self.model(**{self.argument: x})
        return result if isinstance(result, torch.Tensor) else getattr(result, self.output)


def _transformers(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    import transformers as t

    tokens = (torch.randint(5, 200, (1, 24)),)
    small = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    if name == "bert":
        return _Tensors(t.BertForSequenceClassification(t.BertConfig(vocab_size=500, **small)), "logits"), tokens
    if name == "roberta":
        return _Tensors(t.RobertaForSequenceClassification(t.RobertaConfig(vocab_size=500, **small)), "logits"), tokens
    if name == "distilbert":
        config = t.DistilBertConfig(vocab_size=500, dim=128, n_layers=2, n_heads=4, hidden_dim=256)
        return _Tensors(t.DistilBertForSequenceClassification(config), "logits"), tokens
    if name == "gpt2":
        config = t.GPT2Config(vocab_size=500, n_embd=128, n_layer=2, n_head=4, use_cache=False)
        return _Tensors(t.GPT2LMHeadModel(config), "logits"), tokens
    if name == "llama":
        config = t.LlamaConfig(vocab_size=500, num_key_value_heads=2, use_cache=False, **small)
        return _Tensors(t.LlamaForCausalLM(config), "logits"), tokens
    if name == "vit":
        config = t.ViTConfig(image_size=64, patch_size=16, num_labels=10, **small)
        return _Tensors(t.ViTForImageClassification(config), "logits"), (torch.randn(1, 3, 64, 64),)
    if name == "whisper_encoder":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        config = t.WhisperConfig(
            d_model=128, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=256, max_source_positions=100
        )
        return _Tensors(WhisperEncoder(config), "last_hidden_state"), (torch.randn(1, 80, 200),)
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

    config = t.Wav2Vec2Config(conv_dim=(64,) * 7)
    return _Tensors(Wav2Vec2FeatureEncoder(config), ""), (torch.randn(1, 8000),)
