#include "edgeprune_sparse.h"

#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 52
#define SEGMENT 9
#define CHUNK 1024
#define MOST_MEMORY ((uint64_t)80 << 20) /* a window of 64 MiB, and what liblzma needs beside it */

typedef enum edgeprune_sparse_result Result;

typedef struct {
  lzma_stream xz;
  unsigned char *model; /* where the next segment goes */
  size_t room;          /* what is left of the model */
} Loader;

/* `count` bytes, 1 to 8, least significant first; all ones where they do not fit a size_t. */
static size_t number(const unsigned char *bytes, size_t count) {
  size_t value = 0;
  while (count-- > 0) {
    if (value > ((size_t)-1 >> 8)) return (size_t)-1;
    value = value << 8 | bytes[count];
  }
  return value;
}

size_t edgeprune_sparse_size(const unsigned char *data, size_t size) {
  if (size < HEADER || memcmp(data, "EPSPARSE", 8) != 0 || number(data + 8, 4) != 1) return 0;
  return number(data + 12, 8);
}

static Result result_of(lzma_ret code) {
  if (code == LZMA_OK || code == LZMA_STREAM_END) return EDGEPRUNE_SPARSE_OK;
  if (code == LZMA_MEM_ERROR || code == LZMA_MEMLIMIT_ERROR) return EDGEPRUNE_SPARSE_MEMORY;
  return EDGEPRUNE_SPARSE_DAMAGED; /* a stream without a check, too */
}

/* Exactly `count` bytes of the stream. */
static Result take(Loader *loader, unsigned char *out, size_t count) {
  loader->xz.next_out = out;
  loader->xz.avail_out = count;
  while (loader->xz.avail_out > 0) {
    const lzma_ret code = lzma_code(&loader->xz, LZMA_FINISH);
    if (code == LZMA_STREAM_END && loader->xz.avail_out > 0) return EDGEPRUNE_SPARSE_DAMAGED;
    if (result_of(code) != EDGEPRUNE_SPARSE_OK) return result_of(code);
  }
  return EDGEPRUNE_SPARSE_OK;
}

/* One byte of every word that is not zero, `step` apart. */
static Result plane(Loader *loader, const unsigned char *bitmap, size_t count, size_t step, unsigned char *out) {
  unsigned char bytes[CHUNK];
  size_t index, bit, filled = 0, next = 0, have = 0;
  for (index = 0; index < (count + 7) / 8; ++index)
    for (bit = 0; bit < 8; ++bit) filled += bitmap[index] >> bit & 1;
  for (index = 0; index < count; ++index) {
    if (!(bitmap[index / 8] >> index % 8 & 1)) continue;
    if (next == have) {
      Result result;
      have = filled < CHUNK ? filled : CHUNK;
      result = take(loader, bytes, have);
      if (result != EDGEPRUNE_SPARSE_OK) return result;
      filled -= have;
      next = 0;
    }
    out[index * step] = bytes[next++];
  }
  return filled == 0 && next == have ? EDGEPRUNE_SPARSE_OK : EDGEPRUNE_SPARSE_DAMAGED; /* bits behind the last word */
}

static Result words(Loader *loader, size_t count, size_t word) {
  const size_t size = count / 8 + (count % 8 != 0);
  unsigned char *bitmap = (unsigned char *)malloc(size > 0 ? size : 1);
  size_t offset;
  Result result;
  if (bitmap == NULL) return EDGEPRUNE_SPARSE_MEMORY;
  memset(loader->model, 0, count * word);
  result = take(loader, bitmap, size);
  for (offset = 0; offset < word && result == EDGEPRUNE_SPARSE_OK; ++offset)
    result = plane(loader, bitmap, count, word, loader->model + offset);
  free(bitmap);
  return result;
}

static Result segment(Loader *loader) {
  unsigned char head[SEGMENT];
  size_t count, word;
  Result result = take(loader, head, SEGMENT);
  if (result != EDGEPRUNE_SPARSE_OK) return result;
  word = head[0];
  count = number(head + 1, 8);
  if (count == 0 || count > loader->room / (word > 0 ? word : 1)) return EDGEPRUNE_SPARSE_DAMAGED;
  result = word == 0 ? take(loader, loader->model, count) : words(loader, count, word);
  count *= word > 0 ? word : 1;
  loader->model += count;
  loader->room -= count;
  return result;
}

/* Nothing may follow the last segment; asking for it makes liblzma compare the CRC-32. */
static Result end(Loader *loader) {
  unsigned char more;
  lzma_ret code;
  loader->xz.next_out = &more;
  loader->xz.avail_out = 1;
  code = lzma_code(&loader->xz, LZMA_FINISH);
  if (code == LZMA_MEM_ERROR) return EDGEPRUNE_SPARSE_MEMORY;
  if (code != LZMA_STREAM_END || loader->xz.avail_out != 1 || loader->xz.avail_in != 0) return EDGEPRUNE_SPARSE_DAMAGED;
  return EDGEPRUNE_SPARSE_OK;
}

Result edgeprune_sparse_load(const unsigned char *data, size_t size, unsigned char *model, size_t room) {
  const lzma_stream fresh = LZMA_STREAM_INIT;
  Loader loader;
  Result result;
  loader.xz = fresh;
  loader.model = model;
  loader.room = edgeprune_sparse_size(data, size);
  if (loader.room == 0) return EDGEPRUNE_SPARSE_FORMAT;
  if (loader.room > room) return EDGEPRUNE_SPARSE_ROOM;
  if (model == NULL) return EDGEPRUNE_SPARSE_MEMORY;
  result = result_of(lzma_stream_decoder(&loader.xz, MOST_MEMORY, LZMA_TELL_NO_CHECK | LZMA_TELL_UNSUPPORTED_CHECK));
  if (result != EDGEPRUNE_SPARSE_OK) return result;
  loader.xz.next_in = data + HEADER;
  loader.xz.avail_in = size - HEADER;
  while (loader.room > 0 && result == EDGEPRUNE_SPARSE_OK) result = segment(&loader);
  if (result == EDGEPRUNE_SPARSE_OK) result = end(&loader);
  lzma_end(&loader.xz);
  return result;
}
