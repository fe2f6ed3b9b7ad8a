// One step of selective_scan for one channel, a state per clock (clauses C1 to C4 and C8 of selective_scan_step).
// `first` marks the channel's first state; y is the output after its last.
module scan_step (
    input  wire               clock, first, convex,
    input  wire        [ 3:0] k,
    input  wire signed [ 5:0] s_v,
    input  wire        [ 4:0] s_h, s_y,
    input  wire signed [15:0] n_max, x, mod, skip, base,
    input  wire signed [ 7:0] b, c,
    input  wire signed [31:0] h,
    output wire signed [31:0] h_next,
    output wire signed [15:0] y
);
    reg signed [63:0] total;

    wire signed [16:0] moved = base + mod;
    wire signed [15:0] clamped = moved < 0 ? 16'sd0 : moved > 17'(n_max) ? n_max : moved[15:0];          // C8
    wire signed [63:0] n = 64'(clamped);

    wire signed [63:0] product = x * b;
    wire signed [63:0] half_v = (64'sd1 <<< s_v) >>> 1;
    wire signed [63:0] v = s_v < 0 ? product <<< -s_v : (product + half_v) >>> s_v;                       // C1
    wire signed [63:0] unit = 64'sd1 <<< k;
    wire signed [63:0] weight = convex ? unit - n : unit;
    wire signed [63:0] numerator = h * n + v * weight;
    wire signed [63:0] shifted = numerator >>> k;
    assign h_next = shifted[31:0];                                                                       // C2, C3

    wire signed [63:0] half_y = (64'sd1 <<< s_y) >>> 1;
    wire signed [63:0] rounded = (total + half_y) >>> s_y;
    assign y = rounded > 32767 ? 16'sd32767 : rounded < -32767 ? -16'sd32767 : rounded[15:0];             // C4

    wire signed [63:0] bypass = x * skip;
    wire signed [31:0] seen = h_next >>> s_h;
    wire signed [63:0] term = seen * c;
    always @(posedge clock) total <= (first ? bypass : total) + term;
endmodule
