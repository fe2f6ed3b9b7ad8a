/* What the harness gives an op: its arrays as int64, whatever their type, and its parameters by name. */
#ifndef TENSOR_H
#define TENSOR_H
#include <stdint.h>

enum { MOST_TENSORS = 10, MOST_DIMENSIONS = 8 };

typedef struct {
    char name[16], dtype[8], path[512];
    int dimensions;
    int64_t shape[MOST_DIMENSIONS], size, *values;
} tensor;

typedef struct {
    tensor in[MOST_TENSORS], out[MOST_TENSORS];
    const char *parameters;
} call;

typedef struct {
    const char *name;
    void (*run)(call *);
} op;

extern const op OPS[]; /* ends with a NULL name */

int64_t parameter(const call *c, const char *name);
#endif
