"""Tokenize and pack a text by `datasets` and `tokenizers`, as the published code does: `cargo xtask bench-data`.

    python data_bench.py TEXT TOKENIZER LENGTH THREADS OUT

One document a line, every 1,000 documents packed on their own into blocks [BOS] … [EOS], saved as a data set. Prints seconds of
the whole, and of its parts.
"""

import os
import sys
import time

text, tokenizer_file, length, threads, out = sys.argv[1:]
length, threads = int(length), int(threads)
os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads == 1 else "false"

import datasets  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

datasets.disable_progress_bars()
tokenizer = Tokenizer.from_file(tokenizer_file)
tokenizer.no_truncation()
tokenizer.no_padding()
end = tokenizer.token_to_id("<|endoftext|>")
if end is None:
    end = tokenizer.token_to_id("[SEP]")
begin = tokenizer.token_to_id("[CLS]")
if begin is None:
    begin = end


def encode(batch):
    encoded = tokenizer.encode_batch(batch["text"], add_special_tokens=False)
    return {"input_ids": [row.ids + [end] for row in encoded]}


def pack(batch):
    stream = [token for row in batch["input_ids"] for token in row]
    inner = length - 2
    whole = len(stream) // inner * inner
    return {
        "input_ids": [
            [begin] + stream[first : first + inner] + [end]
            for first in range(0, whole, inner)
        ]
    }


started = time.perf_counter()
cache = os.path.join(out, "cache")
data = datasets.load_dataset("text", data_files=text, split="train", cache_dir=cache)
read = time.perf_counter()
data = data.map(encode, batched=True, num_proc=threads, remove_columns=["text"])
encoded = time.perf_counter()
data = data.map(pack, batched=True, num_proc=threads)
data.save_to_disk(os.path.join(out, "data"))
done = time.perf_counter()
print(
    f"{done - started:.2f} read {read - started:.2f} encode {encoded - read:.2f} pack and save {done - encoded:.2f} rows {len(data)}"
)
