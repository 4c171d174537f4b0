"""Train/eval mode as a switch on the graph: batch-norm and dropout read the module's own `training` flag.

A graph is captured in evaluation mode, which bakes `training=False` into these operators. Here the literal is
replaced by a reference to `self.training`, so that `module.train()` and `module.eval()` work as on any module.
"""

from __future__ import annotations

from torch.fx import Graph

from edgeprune.graph.operators import argument_names, is_operator, operator_name

__all__ = ["add_mode_switch"]

_SWITCHES = {
    "batch_norm": "training",
    "dropout": "train",
    "alpha_dropout": "train",
    "feature_dropout": "train",
    "feature_alpha_dropout": "train",
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), "train"),
}


def add_mode_switch(graph: Graph) -> None:
    """Let every operator that behaves differently in training follow the module's `training` flag.

    What was captured as always active (a literal True: functional dropout without a flag) stays as it is.
    """
    flag = None
    for node in list(graph.nodes):
        if node.op != "call_function" or not is_operator(node):
            continue
        argument = _SWITCHES.get(operator_name(node).rstrip("_"))
        if argument is None:
            continue
        position = argument_names(node).index(argument)
        literal = node.args[position] if position < len(node.args) else node.kwargs.get(argument)
        if literal is not False:
            continue
        if operator_name(node) == "batch_norm" and node.args[3] is None:
            continue  # no running statistics: always computed from the batch
        if flag is None:
            with graph.inserting_before(next(iter(graph.nodes))):
                flag = graph.create_node("get_attr", "training")
        if position < len(node.args):
            node.update_arg(position, flag)
        else:
            node.update_kwarg(argument, flag)
