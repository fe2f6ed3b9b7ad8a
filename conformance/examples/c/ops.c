/* Ops of the specification in portable C99. Each comment names the clauses that `mamba-integer ops --op NAME` prints. */
#include <stddef.h>
#include <stdlib.h>

#include "tensor.h"

/* C99 leaves the sign of a shifted negative number open; these are the floors of the specification. */
static int64_t shift_floor(int64_t x, int64_t s) {
    return x >= 0 ? x >> s : ~(~x >> s);
}

static int64_t shift_up(int64_t x, int64_t s) {
    return x * (INT64_C(1) << s);
}

static int64_t shift_round(int64_t x, int64_t s) {
    return shift_floor(x + (shift_up(1, s) >> 1), s);
}

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

static int64_t saturate(int64_t x, int bits) {
    int64_t limit = shift_up(1, bits - 1) - 1;
    return x > limit ? limit : x < -limit ? -limit : x;
}

static int64_t isqrt(int64_t v) {
    int64_t root = 0;
    for (int64_t bit = INT64_C(1) << 16; bit; bit >>= 1)
        if ((root + bit) * (root + bit) <= v) root += bit;
    return root;
}

static int64_t absolute(int64_t x) {
    return x < 0 ? -x : x;
}

static int64_t rows_of(const tensor *t) {
    int64_t rows = 1;
    for (int i = 0; i < t->dimensions - 1; i++) rows *= t->shape[i];
    return rows;
}

static void squareplus(call *c) {
    int64_t f = parameter(c, "f"), offset = parameter(c, "offset");
    for (int64_t i = 0; i < c->in[0].size; i++) {
        int64_t x = c->in[0].values[i], root = isqrt(x * x + shift_up(4, 2 * f)); /* C1 */
        c->out[0].values[i] = saturate(shift_floor(x + root, 1) - offset, 16);    /* C2, C3 */
    }
}

static void sigmoid_gate(call *c) {
    int64_t f = parameter(c, "f");
    for (int64_t i = 0; i < c->in[0].size; i++) {
        int64_t x = c->in[0].values[i], z = c->in[1].values[i];
        int64_t g = (1 << 14) + floor_div(z * (1 << 14), shift_up(1, f) + absolute(z)); /* C1 */
        c->out[0].values[i] = shift_round(x * g, 15);                                   /* C2 */
    }
}

static void bitshift_norm(call *c) {
    const tensor *x = &c->in[0], *gamma = &c->in[1];
    int64_t D = gamma->size, b = parameter(c, "b"), s = parameter(c, "s");
    for (int64_t r = 0; r < rows_of(x); r++) {
        const int64_t *row = x->values + r * D;
        int64_t sum = 0, squares = 0, k = 0, m = 1;
        for (int64_t i = 0; i < D; i++) sum += row[i];
        int64_t mean = floor_div(sum, D); /* C1 */
        for (int64_t i = 0; i < D; i++) squares += (row[i] - mean) * (row[i] - mean);
        while (squares > D << (2 * k)) k++; /* C2 */
        if (b > 0) {                        /* C3 */
            int64_t t = k > 8 ? k - 8 : 0, root = 0, mean_square = squares >> (2 * t);
            for (int64_t bit = INT64_C(2) << b; bit; bit >>= 1)
                if ((root + bit) * (root + bit) * mean_square <= D << (2 * (k - t + b + 1))) root += bit;
            m = (root + 1) >> 1;
        }
        for (int64_t i = 0; i < D; i++) { /* C5 */
            int64_t scaled = (row[i] - mean) * m * gamma->values[i];
            c->out[0].values[r * D + i] = saturate(shift_round(scaled, k + b + s), 16);
        }
    }
}

static void ternary_linear(call *c) {
    const tensor *q = &c->in[0], *e = &c->in[1], *w = &c->in[2];
    int64_t K = q->shape[q->dimensions - 1], N = w->shape[0], bytes = w->shape[1];
    int64_t num = parameter(c, "num"), shift = parameter(c, "shift");
    for (int64_t r = 0; r < e->size; r++)
        for (int64_t n = 0; n < N; n++) {
            int64_t sum = 0;
            for (int64_t k = 0; k < K; k++) { /* C1: code 01 adds, 11 subtracts */
                int64_t code = w->values[n * bytes + k / 4] >> (2 * (k % 4)) & 3;
                sum += code == 1 ? q->values[r * K + k] : code == 3 ? -q->values[r * K + k] : 0;
            }
            c->out[0].values[r * N + n] = saturate(shift_round(shift_up(sum * num, e->values[r]), shift), 16);
        }
}

static void dyadic_rotate(call *c) {
    int64_t P = c->in[1].size, s = parameter(c, "s");
    for (int64_t i = 0; i < c->in[0].size / 2; i++) {
        int64_t x = c->in[0].values[2 * i], y = c->in[0].values[2 * i + 1], p = i % P;
        int64_t lam = c->in[1].values[p], gam = c->in[2].values[p];
        for (int64_t turns = c->in[3].values[p]; turns > 0; turns--) { /* C1 */
            int64_t old = x;
            x = -y;
            y = old;
        }
        x += shift_floor(y * lam, s); /* C2 */
        y += shift_floor(x * gam, s);
        x += shift_floor(y * lam, s);
        c->out[0].values[2 * i] = x;
        c->out[0].values[2 * i + 1] = y;
    }
}

static int64_t pow2_weight(int64_t d, int64_t f) {
    int64_t r = d & (shift_up(1, f) - 1), whole = d >> f;
    int64_t mantissa = 65536 - (44025 * r >> f) + (11257 * r * r >> (2 * f));
    return mantissa >> (whole < 31 ? whole : 31);
}

static void softmax_pow2(call *c) {
    const tensor *logits = &c->in[0];
    int64_t V = logits->shape[logits->dimensions - 1], f = parameter(c, "f"), q = parameter(c, "q");
    for (int64_t r = 0; r < rows_of(logits); r++) {
        const int64_t *row = logits->values + r * V;
        int64_t most = row[0], sum = 0;
        for (int64_t i = 1; i < V; i++)
            if (row[i] > most) most = row[i];
        for (int64_t i = 0; i < V; i++) sum += pow2_weight(most - row[i], f); /* C1, C2 */
        for (int64_t i = 0; i < V; i++)                                     /* C3 */
            c->out[0].values[r * V + i] = floor_div(shift_up(pow2_weight(most - row[i], f), q) + (sum >> 1), sum);
    }
}

static void philox4x32(call *c) {
    for (int64_t i = 0; i < c->in[0].size; i += 4) {
        uint32_t w[4], key0 = (uint32_t)parameter(c, "key0"), key1 = (uint32_t)parameter(c, "key1");
        for (int j = 0; j < 4; j++) w[j] = (uint32_t)c->in[0].values[i + j];
        for (int round = 0; round < 10; round++) {
            uint64_t product0 = (uint64_t)w[0] * 0xD2511F53, product1 = (uint64_t)w[2] * 0xCD9E8D57;
            w[0] = (uint32_t)(product1 >> 32) ^ w[1] ^ key0;
            w[1] = (uint32_t)product1;
            w[2] = (uint32_t)(product0 >> 32) ^ w[3] ^ key1;
            w[3] = (uint32_t)product0;
            key0 += 0x9E3779B9;
            key1 += 0xBB67AE85;
        }
        for (int j = 0; j < 4; j++) c->out[0].values[i + j] = w[j] < 0x80000000 ? w[j] : w[j] - INT64_C(0x100000000);
    }
}

/* Inputs x, mod, base, b, c, skip, h; outputs y, h. A step is a sequence of length 1. */
static void scan(call *c, int64_t L) {
    const tensor *x = &c->in[0], *mod = &c->in[1], *base = &c->in[2], *b = &c->in[3], *mix = &c->in[4];
    int64_t B = c->in[6].shape[0], D = base->shape[0], N = base->shape[1];
    int64_t k = parameter(c, "k"), n_max = parameter(c, "n_max"), convex = parameter(c, "convex");
    int64_t s_v = parameter(c, "s_v"), s_h = parameter(c, "s_h"), s_y = parameter(c, "s_y");
    int64_t *h = c->out[1].values;
    for (int64_t i = 0; i < B * D * N; i++) h[i] = c->in[6].values[i];
    for (int64_t i = 0; i < B; i++)
        for (int64_t t = 0; t < L; t++)
            for (int64_t d = 0; d < D; d++) {
                int64_t at = (i * L + t) * D + d, sum = c->in[5].values[d] * x->values[at];
                for (int64_t j = 0; j < N; j++) {
                    int64_t n = base->values[d * N + j] + mod->values[at], *state = &h[(i * D + d) * N + j];
                    n = n < 0 ? 0 : n > n_max ? n_max : n; /* C8 */
                    int64_t v = x->values[at] * b->values[(i * L + t) * N + j];
                    v = s_v < 0 ? shift_up(v, -s_v) : shift_round(v, s_v);                         /* C1 */
                    *state = shift_floor(*state * n + v * (shift_up(1, k) - (convex ? n : 0)), k); /* C2, C3 */
                    sum += shift_floor(*state, s_h) * mix->values[(i * L + t) * N + j];
                }
                c->out[0].values[at] = saturate(shift_round(sum, s_y), 16); /* C4 */
            }
}

static void selective_scan(call *c) {
    scan(c, c->in[0].shape[1]);
}

static void selective_scan_step(call *c) {
    scan(c, 1);
}

const op OPS[] = {
    {"bitshift_norm", bitshift_norm},   {"dyadic_rotate", dyadic_rotate},   {"philox4x32", philox4x32},
    {"selective_scan", selective_scan}, {"sigmoid_gate", sigmoid_gate},     {"selective_scan_step", selective_scan_step},
    {"softmax_pow2", softmax_pow2},     {"squareplus", squareplus},         {"ternary_linear", ternary_linear},
    {NULL, NULL},
};
