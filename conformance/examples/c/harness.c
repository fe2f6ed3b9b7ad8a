/* Speaks conformance/PROTOCOL.md on stdin and stdout. Lines come with their names sorted and without spaces. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor.h"

enum { LONGEST = 1 << 20 };

static char line[LONGEST];

static void stop(const char *message) {
    fprintf(stderr, "%s\n", message);
    exit(1);
}

/* Returns what follows `key` before `end`, or NULL. */
static const char *after(const char *from, const char *key, const char *end) {
    const char *at = strstr(from, key);
    return at && at < end ? at + strlen(key) : NULL;
}

static void copy_text(char *to, size_t room, const char *from) {
    size_t length = strcspn(from, "\"");
    if (length >= room) stop("a name or path is too long");
    memcpy(to, from, length);
    to[length] = 0;
}

int64_t parameter(const call *c, const char *name) {
    char key[32];
    snprintf(key, sizeof key, "\"%s\":\"", name);
    const char *text = after(c->parameters, key, line + LONGEST);
    if (!text) stop("a parameter is missing");
    return *text == '-' ? strtoll(text, NULL, 10) : (int64_t)strtoull(text, NULL, 10);
}

static int bytes_of(const char *dtype) {
    return atoi(dtype + strcspn(dtype, "0123456789")) / 8;
}

static void read_file(tensor *t) {
    int bytes = bytes_of(t->dtype);
    FILE *file = fopen(t->path, "rb");
    if (!file) stop("an input can't be opened");
    for (int64_t i = 0; i < t->size; i++) {
        unsigned char raw[8];
        uint64_t bits = 0;
        if (fread(raw, 1, bytes, file) != (size_t)bytes) stop("an input is too short");
        for (int k = 0; k < bytes; k++) bits |= (uint64_t)raw[k] << (8 * k);
        uint64_t sign = t->dtype[0] == 'u' ? 0 : UINT64_C(1) << (8 * bytes - 1);
        t->values[i] = (int64_t)((bits ^ sign) - sign);
    }
    fclose(file);
}

static void write_file(const tensor *t) {
    int bytes = bytes_of(t->dtype);
    FILE *file = fopen(t->path, "wb");
    if (!file) stop("an output can't be opened");
    for (int64_t i = 0; i < t->size; i++)
        for (int k = 0; k < bytes; k++) fputc((int)((uint64_t)t->values[i] >> (8 * k) & 255), file);
    if (fclose(file)) stop("an output can't be written");
}

/* Reads one object {"data": ..., "dtype": ..., "name": ..., "path": ..., "shape": [...]}; returns its end. */
static const char *read_tensor(tensor *t, const char *text) {
    const char *end = strchr(text, '}'), *dtype = after(text, "\"dtype\":\"", end), *path = after(text, "\"path\":\"", end);
    const char *data = after(text, "\"data\":\"", end), *shape = after(text, "\"shape\":[", end);
    if (!dtype) dtype = after(text, "\"dtypes\":\"", end);
    copy_text(t->name, sizeof t->name, after(text, "\"name\":\"", end));
    copy_text(t->dtype, sizeof t->dtype, dtype);
    t->path[0] = 0;
    if (path) copy_text(t->path, sizeof t->path, path);
    t->size = 1;
    for (t->dimensions = 0; *shape != ']'; shape += strspn(shape, ",")) {
        char *next;
        t->size *= t->shape[t->dimensions++] = strtoll(shape, &next, 10);
        shape = next;
    }
    t->values = calloc(t->size + 1, sizeof *t->values);
    if (!t->values) stop("no memory");
    for (int64_t i = 0; data && i < t->size; i++) {
        char *next;
        t->values[i] = strtoll(data, &next, 10);
        data = next;
    }
    return end + 1;
}

static int read_tensors(tensor *tensors, const char *key) {
    const char *at = after(line, key, line + LONGEST);
    int count = 0;
    for (; *at != ']'; at += *at == ',') at = read_tensor(&tensors[count++], at);
    return count;
}

static void print_tensor(const tensor *t) {
    printf("{\"dtype\":\"%s\",\"shape\":[", t->dtype);
    for (int i = 0; i < t->dimensions; i++) printf("%s%" PRId64, i ? "," : "", t->shape[i]);
    if (t->path[0]) {
        write_file(t);
        printf("],\"path\":\"%s\"}", t->path);
        return;
    }
    printf("],\"data\":\"");
    for (int64_t i = 0; i < t->size; i++) printf("%s%" PRId64, i ? " " : "", t->values[i]);
    printf("\"}");
}

static void run(const char *name, long seq) {
    static call c;
    const op *chosen = OPS;
    while (chosen->name && strcmp(chosen->name, name)) chosen++;
    if (!chosen->name) {
        printf("{\"seq\":%ld,\"skipped\":\"not implemented\"}\n", seq);
        return;
    }
    int inputs = read_tensors(c.in, "\"inputs\":["), outputs = read_tensors(c.out, "\"outputs\":[");
    c.parameters = strstr(line, "\"parameters\":{");
    for (int i = 0; i < inputs; i++)
        if (c.in[i].path[0]) read_file(&c.in[i]);
    chosen->run(&c);
    printf("{\"seq\":%ld,\"outputs\":[", seq);
    for (int i = 0; i < outputs; i++) printf("%s", i ? "," : ""), print_tensor(&c.out[i]);
    printf("]}\n");
    for (int i = 0; i < inputs; i++) free(c.in[i].values);
    for (int i = 0; i < outputs; i++) free(c.out[i].values);
}

int main(void) {
    while (fgets(line, sizeof line, stdin) && !strstr(line, "\"cmd\":\"stop\"")) {
        char name[64];
        if (strstr(line, "\"cmd\":\"start\"")) {
            printf("{\"name\":\"c99\",\"ops\":[");
            for (const op *o = OPS; o->name; o++) printf("%s\"%s\"", o == OPS ? "" : ",", o->name);
            printf("]}\n");
        } else {
            copy_text(name, sizeof name, strstr(line, "\"op\":\"") + 6);
            run(name, strtol(strstr(line, "\"seq\":") + 6, NULL, 10));
        }
        fflush(stdout);
    }
    return 0;
}
