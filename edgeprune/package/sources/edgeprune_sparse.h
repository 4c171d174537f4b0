/* Loads a model that is stored without its zeros (.sparse); link with liblzma: -llzma.

   The format, little endian: "EPSPARSE"; 4 bytes, version 1; 8 bytes, the size of the model; 32 bytes, its SHA-256; then
   segments as one xz stream. A segment begins with a byte, the word size w, and 8 bytes, a count n. Where w is 0, n bytes
   follow as they are. Else it stands for n words of w bytes: (n + 7) / 8 bytes of a bitmap, the lowest bit first, in which
   1 is a word that is not zero; then the words that are not zero: the first byte of each, then the second of each ... */
#ifndef EDGEPRUNE_SPARSE_H
#define EDGEPRUNE_SPARSE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum edgeprune_sparse_result {
  EDGEPRUNE_SPARSE_OK = 0,
  EDGEPRUNE_SPARSE_FORMAT = 1,  /* not such a file, or of another version */
  EDGEPRUNE_SPARSE_ROOM = 2,    /* the model is larger than the room for it */
  EDGEPRUNE_SPARSE_MEMORY = 3,  /* no memory for the model, or not enough to decompress it */
  EDGEPRUNE_SPARSE_DAMAGED = 4  /* cut off, or not what was stored: the stream's CRC-32 tells, the SHA-256 is not used */
};

/* Bytes of the model in `data`, which has `size` bytes; 0 where it is not such a file. */
size_t edgeprune_sparse_size(const unsigned char *data, size_t size);

/* Writes the model to `model`, which has room for `room` bytes. What is there is of worth after EDGEPRUNE_SPARSE_OK alone.
   While it runs it takes the memory that the stream asks for (the next power of two above what is stored before it is
   compressed, 64 MiB at most, and some tens of kB), and a bit for each word of the largest tensor. */
enum edgeprune_sparse_result edgeprune_sparse_load(const unsigned char *data, size_t size, unsigned char *model,
                                                   size_t room);

#ifdef __cplusplus
}
#endif

#endif
