// Reads the vectors of `mamba-integer vectors export DIR --op selective_scan_step --format hex`, named by
// +vectors=DIR/selective_scan_step/, and writes y.got.hex and h.got.hex beside them.
module testbench;
    localparam MOST = 1 << 16;

    reg [63:0] parameters[0:5], shapes[0:13];
    reg signed [15:0] xs[0:MOST-1], mods[0:MOST-1], bases[0:MOST-1], skips[0:MOST-1];
    reg signed [ 7:0] bs[0:MOST-1], cs[0:MOST-1];
    reg signed [31:0] hs[0:MOST-1];

    reg clock = 0, first, convex;
    reg [3:0] k;
    reg signed [5:0] s_v;
    reg [4:0] s_h, s_y;
    reg signed [15:0] n_max, x, mod, skip, base;
    reg signed [7:0] b, c;
    reg signed [31:0] h;
    wire signed [31:0] h_next;
    wire signed [15:0] y;
    scan_step dut (.*);

    string folder;
    reg last;
    integer vector, file, y_file, h_file, batch, channels, states, i, d, j;
    initial begin
        if (!$value$plusargs("vectors=%s", folder)) $fatal(1, "+vectors=FOLDER is missing");
        last = 0;
        for (vector = 0; !last; vector = vector + 1) begin
            file = $fopen({name(vector), "shapes.hex"}, "r");
            last = file == 0;
            if (!last) begin
                $fclose(file);
                run(name(vector));
            end
        end
        $finish(0);
    end

    function automatic string name(input integer number);
        return $sformatf("%s%0d/", folder, number);
    endfunction

    task automatic run(input string place);
        $readmemh({place, "parameters.hex"}, parameters);
        $readmemh({place, "shapes.hex"}, shapes, 0, 13);
        {k, n_max, s_v, s_h} = {parameters[0][3:0], parameters[1][15:0], parameters[2][5:0], parameters[3][4:0]};
        {s_y, convex} = {parameters[4][4:0], parameters[5][0]};
        batch = shapes[0][31:0];
        channels = shapes[1][31:0];
        states = shapes[5][31:0];
        if (batch * channels > 0) begin
            $readmemh({place, "x.hex"}, xs, 0, batch * channels - 1);
            $readmemh({place, "mod.hex"}, mods, 0, batch * channels - 1);
            $readmemh({place, "base.hex"}, bases, 0, channels * states - 1);
            $readmemh({place, "b.hex"}, bs, 0, batch * states - 1);
            $readmemh({place, "c.hex"}, cs, 0, batch * states - 1);
            $readmemh({place, "skip.hex"}, skips, 0, channels - 1);
            $readmemh({place, "h.hex"}, hs, 0, batch * channels * states - 1);
        end
        y_file = $fopen({place, "y.got.hex"}, "w");
        h_file = $fopen({place, "h.got.hex"}, "w");
        for (i = 0; i < batch; i = i + 1)
            for (d = 0; d < channels; d = d + 1) begin
                {x, mod, skip} = {xs[i * channels + d], mods[i * channels + d], skips[d]};
                for (j = 0; j < states; j = j + 1) begin
                    {base, b, c} = {bases[d * states + j], bs[i * states + j], cs[i * states + j]};
                    h = hs[(i * channels + d) * states + j];
                    first = j == 0;
                    #1 $fdisplay(h_file, "%h", h_next);
                    clock = 1;
                    #1 clock = 0;
                end
                #1 $fdisplay(y_file, "%h", y);
            end
        $fclose(y_file);
        $fclose(h_file);
    endtask
endmodule
