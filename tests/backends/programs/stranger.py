"""A program that computes isqrt, except for inputs that stand for a way to go wrong; it tells its process number."""

import json
import math
import os
import subprocess
import sys
import time

WRONG = {
    "floats": '"outputs":[{"dtype":"int32","shape":[1],"data":"1.5"}]',
    "numbers": '"outputs":[{"dtype":"int32","shape":[1],"data":[1]}]',
    "json_float": '"outputs":[1.5]',
    "nan": '"outputs":NaN',
    "shape": '"outputs":[{"dtype":"int32","shape":[2],"data":"1 1"}]',
    "shape_of_more": '"outputs":[{"dtype":"int32","shape":[2],"data":"1"}]',
    "huge_shape": '"outputs":[{"dtype":"int32","shape":[1000000000000,1000000000000,0],"data":""}]',
    "negative_shape": '"outputs":[{"dtype":"int32","shape":[-1],"data":"1"}]',
    "dtype": '"outputs":[{"dtype":"int64","shape":[1],"data":"1"}]',
    "no_dtype": '"outputs":[{"shape":[1],"data":"1"}]',
    "float_dtype": '"outputs":[{"dtype":"float32","shape":[1],"data":"1"}]',
    "beyond_int32": '"outputs":[{"dtype":"int32","shape":[1],"data":"2147483648"}]',
    "beyond_int64": '"outputs":[{"dtype":"int32","shape":[1],"data":"99999999999999999999999"}]',
    "digits_of_unicode": '"outputs":[{"dtype":"int32","shape":[1],"data":"\\u0661"}]',
    "two_results": '"outputs":[{"dtype":"int32","shape":[1],"data":"1"},{"dtype":"int32","shape":[1],"data":"1"}]',
    "other_name": '"outputs":[{"name":"y","dtype":"int32","shape":[1],"data":"1"}]',
    "other_file": '"outputs":[{"dtype":"int32","shape":[1],"path":"/etc/passwd"}]',
    "data_and_path": '"outputs":[{"dtype":"int32","shape":[1],"data":"1","path":"x"}]',
    "a_list": '"outputs":{}',
    "no_answer": '"done":true',
    "two_kinds": '"outputs":[],"skipped":"no"',
    "name_twice": '"outputs":[],"outputs":[]',
    "errored": '"errored":"not today\\u001b[2J"',
    "skipped_by_number": '"skipped":1',
}
MODES = [
    *WRONG,
    "crash",
    "quit",
    "hang",
    "hang_of_a_child",
    "close",
    "garbage",
    "binary",
    "not_an_object",
    "deep",
    "long_line",
    "endless_line",
    "twice",
    "other_seq",
    "no_seq",
]
FIRST = 1_000_003  # isqrt of FIRST + i goes wrong in way i


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if request["cmd"] == "start":
            answer({"name": "stranger", "ops": ["isqrt", "no_such_op"]})
        elif request["cmd"] == "run":
            run(request)
        else:
            break


def run(request: dict) -> None:
    (tensor,), seq = request["inputs"], request["seq"]
    if "path" in tensor:
        return answer({"seq": seq, "skipped": "more than 64 integers"})
    values = [int(word) for word in tensor["data"].split()]
    for value in values:
        if 0 <= value - FIRST < len(MODES):
            return misbehave(MODES[value - FIRST], seq)
    roots = " ".join(str(math.isqrt(value)) for value in values)
    answer({"seq": seq, "outputs": [{"dtype": "int32", "shape": tensor["shape"], "data": roots}]})


def misbehave(mode: str, seq: int) -> None:
    right = {"seq": seq, "outputs": [{"dtype": "int32", "shape": [1], "data": "1000"}]}
    print("going wrong", file=sys.stderr, flush=True)
    if mode in WRONG:
        write(f'{{"seq":{seq},{WRONG[mode]}}}')
    elif mode == "crash":
        os.abort()
    elif mode == "quit":
        sys.exit(3)
    elif mode == "hang":
        time.sleep(600)
    elif mode == "hang_of_a_child":
        child = subprocess.Popen(["sleep", "600"])
        print(child.pid, file=sys.stderr, flush=True)
        child.wait()
    elif mode == "close":
        os.close(1)
        time.sleep(600)
    elif mode == "garbage":
        write("Segmentation fault")
    elif mode == "binary":
        os.write(1, b"\xff\xfe\x00\n")
    elif mode == "not_an_object":
        write("[1]")
    elif mode == "deep":
        write("[" * 100_000)
    elif mode == "long_line":
        write(" " * (1 << 21))
    elif mode == "endless_line":
        while True:
            os.write(1, b"0" * (1 << 16))
    elif mode == "twice":
        os.write(1, (json.dumps(right) + "\n" + json.dumps(right) + "\n").encode())
    elif mode == "other_seq":
        answer(right | {"seq": seq + 1})
    elif mode == "no_seq":
        answer({"outputs": right["outputs"]})


def answer(fields: dict) -> None:
    write(json.dumps(fields))


def write(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
