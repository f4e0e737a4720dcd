"""The works of `cargo xtask bench` in plain PyTorch, for comparison.

Written for this project after the published description of flow language models, not copied from their code. Two variants:

- `released`: as the released code does it, one-hot data, noise and logits as wide as the vocabulary
- `lean`: the leanest plain formulation we know: rows of E gathered for the data, noise drawn as wide as the network
  (a Cholesky factor of EᵀE, its basis held constant), cross-entropy by PyTorch's own function

Prints one line of JSON: seconds of each repetition and the peak resident memory of the process in MiB. With `--many FILE` each line
of the file holds the options of one work, done one after the other in one process; each answers with a line. On CUDA products of f32
are TF32, `--dtype bf16` is autocast, and `--attention sdpa` takes PyTorch's fused attention, which has no soft cap and so does less.
"""

import argparse
import contextlib
import gc
import json
import math
import resource
import subprocess
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SOFTCAP_ATTENTION = 50.0
SOFTCAP_LOGITS = 30.0


def rotary_tables(length, head_width):
    frequencies = 10_000.0 ** (-torch.arange(0, head_width, 2).float() / head_width)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return angles.cos()[None, :, None, :], angles.sin()[None, :, None, :]


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class TimeEmbed(nn.Module):
    def __init__(self, cond):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, cond), nn.SiLU(), nn.Linear(cond, cond))

    def forward(self, tau):
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(128) / 128)
        angles = tau[:, None] * frequencies[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


def modulate(x, shift, scale):
    return x * (1 + scale) + shift


class Block(nn.Module):
    fused_attention = False

    def __init__(self, width, heads, cond, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(cond, 6 * width)

    def attention(self, x, cos, sin):
        batch, length, width = x.shape
        q, k, v = self.attn_qkv(x).view(batch, length, 3, self.heads, -1).unbind(2)
        q, k = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2)
        if self.fused_attention:
            v = v.transpose(1, 2)
            mixed = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
            return self.attn_out(mixed.transpose(1, 2).reshape(batch, length, width))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = SOFTCAP_ATTENTION * torch.tanh(scores / SOFTCAP_ATTENTION)
        mixed = scores.softmax(dim=-1) @ v.transpose(1, 2)
        return self.attn_out(mixed.transpose(1, 2).reshape(batch, length, width))

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training)

    def forward(self, x, cond, cos, sin):
        parts = self.modulation(cond)[:, None].chunk(6, dim=2)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * self.drop(self.attention(modulate(self.norm1(x), shift1, scale1), cos, sin))
        return x + gate2 * self.drop(self.mlp(modulate(self.norm2(x), shift2, scale2)))


class Dit(nn.Module):
    def __init__(self, vocab, length, width, blocks, heads, cond, dropout, two_time):
        super().__init__()
        self.heads = heads
        self.embedding = nn.Parameter((torch.rand(vocab, width) * 2 - 1) / math.sqrt(width))
        self.sigma = TimeEmbed(cond)
        self.sigma_prime = TimeEmbed(cond) if two_time else None
        self.blocks = nn.ModuleList(Block(width, heads, cond, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, bias=False)
        self.modulation = nn.Linear(cond, 2 * width)
        self.head = nn.Linear(width, vocab)
        self.tables = rotary_tables(length, width // heads)

    def forward(self, state, tau_s, tau_t):
        """Soft-capped logits for a projected state."""
        cond = self.sigma(tau_s)
        if self.sigma_prime is not None:
            cond = cond + self.sigma_prime(tau_t)
        cond = F.silu(cond)
        x = state
        for block in self.blocks:
            x = block(x, cond, *self.tables)
        shift, scale = self.modulation(cond)[:, None].chunk(2, dim=2)
        logits = self.head(modulate(self.norm(x), shift, scale))
        return SOFTCAP_LOGITS * torch.tanh(logits / SOFTCAP_LOGITS)


class Released:
    """States are as wide as the vocabulary."""

    def __init__(self, model, vocab):
        self.model, self.vocab = model, vocab

    def fix(self, model):
        """Nothing is made of the embedding."""

    def noise(self, model, batch, length):
        return torch.randn(batch, length, self.vocab)

    def state(self, tokens, noise, t):
        t = t[:, None, None]
        return (1 - t) * noise + t * F.one_hot(tokens, self.vocab).float()

    def seen(self, model, state):
        return state @ model.embedding

    def move(self, state, target, s, t):
        share = ((t - s) / (1 - s))[:, None, None]
        return (1 - share) * state + share * target

    def token_loss(self, logits, tokens):
        log_probs = logits.log_softmax(dim=-1)
        return -log_probs.gather(-1, tokens[..., None]).mean()


class Lean(Released):
    """States are as wide as the network."""

    root = None

    def fix(self, model):
        """The embedding stays as it is: its factor is made once."""
        embedding = model.embedding.detach()
        self.root = torch.linalg.cholesky(embedding.T @ embedding, upper=True)

    def noise(self, model, batch, length):
        embedding = model.embedding
        if self.root is not None:
            return torch.randn(batch, length, embedding.shape[1]) @ self.root
        with torch.no_grad(), torch.autocast(embedding.device.type, enabled=False):
            root = torch.linalg.cholesky(embedding.T @ embedding, upper=True)
            basis = torch.linalg.solve_triangular(root, embedding, upper=True, left=False)
        return torch.randn(batch, length, embedding.shape[1]) @ (basis.T @ embedding)

    def state(self, tokens, noise, t):
        t = t[:, None, None]
        return (1 - t) * noise + t * F.embedding(tokens, self.model.embedding)

    def seen(self, model, state):
        return state

    def move(self, state, target, s, t):
        share = ((t - s) / (1 - s))[:, None, None]
        return (1 - share) * state + share * (target @ self.model.embedding)

    def token_loss(self, logits, tokens):
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def update(model, average, optimizer):
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - 0.9999)


def copy_of(model, build):
    other = build()
    other.load_state_dict(model.state_dict())
    return other.requires_grad_(False)


def flow_step(options):
    build = lambda: Dit(**sizes(options), dropout=options.dropout, two_time=False)
    model = build()
    average = copy_of(model, build)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.0, fused=options.fused)
    variant = options.ways(model, options.vocab)
    forward = torch.compile(model) if options.compile else model

    def step():
        rows, total = options.batch // options.parts, 0.0
        for _ in range(options.parts):
            tokens = torch.randint(options.vocab, (rows, options.length))
            tau = torch.rand(rows)
            state = variant.state(tokens, variant.noise(model, *tokens.shape), tau)
            logits = forward(variant.seen(model, state), tau, tau)
            loss = variant.token_loss(logits, tokens) / options.parts
            loss.backward()
            total += loss.detach()
        update(model, average, optimizer)
        return total.item()

    return step


def semigroup_step(options):
    flow = lambda: Dit(**sizes(options), dropout=0.0, two_time=False)
    build = lambda: Dit(**sizes(options), dropout=options.dropout, two_time=True)
    teacher, student = flow().requires_grad_(False), build()
    average = copy_of(student, build)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4, weight_decay=0.0, fused=options.fused)
    variant = options.ways(student, options.vocab)
    half = options.batch // 2

    def step():
        tokens = torch.randint(options.vocab, (options.batch, options.length))
        s = torch.rand(options.batch) * 0.5
        u, t = s + 0.2, s + 0.4
        t[:half], u[:half] = s[:half], s[:half]
        state = variant.state(tokens, variant.noise(student, *tokens.shape), s)
        with torch.no_grad():
            student.eval()
            on = teacher(variant.seen(teacher, state[:half]), s[:half], s[:half]).softmax(-1)
            rest = state[half:]
            first = student(variant.seen(student, rest), s[half:], u[half:]).softmax(-1)
            middle = variant.move(rest, first, s[half:], u[half:])
            second = student(variant.seen(student, middle), u[half:], t[half:]).softmax(-1)
            target = torch.cat([on, 0.5 * first + 0.5 * second])
            student.train()
        log_probs = student(variant.seen(student, state), s, t).log_softmax(-1)
        loss = -(target * log_probs).sum(-1).mean()
        loss.backward()
        update(student, average, optimizer)
        return loss.item()

    return step


def sampling(options):
    model = Dit(**sizes(options), dropout=0.0, two_time=True).eval()
    variant = options.ways(model, options.vocab)
    variant.fix(model)
    times = torch.linspace(0, 1, options.jumps + 1)

    @torch.no_grad()
    def step():
        state = variant.noise(model, options.batch, options.length)
        for s, t in zip(times[:-1], times[1:]):
            s, t = s.expand(options.batch), t.expand(options.batch)
            target = model(variant.seen(model, state), s, t).softmax(-1)
            if t[0] < 1:
                state = variant.move(state, target, s, t)
        return target.argmax(-1)

    return step


def block(options):
    layer = Block(options.width, options.heads, options.cond, 0.0)
    cos, sin = rotary_tables(options.length, options.width // options.heads)
    x = torch.randn(options.batch, options.length, options.width, requires_grad=options.backward)
    cond = torch.randn(options.batch, options.cond)
    run = torch.compile(layer) if options.compile else layer

    def forward():
        with torch.no_grad():
            return run(x, cond, cos, sin)

    def both():
        run(x, cond, cos, sin).sum().backward()
        layer.zero_grad(set_to_none=True)
        x.grad = None

    return both if options.backward else forward


def head(options):
    linear = nn.Linear(options.width, options.vocab)
    x = torch.randn(options.batch * options.length, options.width, requires_grad=options.backward)
    tokens = torch.randint(options.vocab, (x.shape[0],))

    def loss():
        logits = SOFTCAP_LOGITS * torch.tanh(linear(x) / SOFTCAP_LOGITS)
        return -logits.log_softmax(-1).gather(1, tokens[:, None]).mean()

    def forward():
        with torch.no_grad():
            return loss()

    def both():
        loss().backward()
        linear.zero_grad(set_to_none=True)
        x.grad = None

    return both if options.backward else forward


def peak(options):
    n = options.size
    a, b = torch.randn(n, n), torch.randn(n, n)
    if options.dtype == "bf16":
        a, b = a.bfloat16(), b.bfloat16()
    return lambda: a @ b


def copy(options):
    a = torch.randn(options.size, options.size)
    return lambda: a + 1


def sizes(options):
    keys = ["vocab", "length", "width", "blocks", "heads", "cond"]
    return {key: getattr(options, key) for key in keys}


WORKS = {
    "block": block,
    "head": head,
    "flow": flow_step,
    "semigroup": semigroup_step,
    "sample": sampling,
    "peak": peak,
    "copy": copy,
}


def parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=WORKS, nargs="?")
    for name in ["vocab", "length", "width", "blocks", "heads", "cond", "batch", "jumps", "parts"]:
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=1024, help="rows of a square matrix")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--variant", choices=["released", "lean"], default="released")
    parser.add_argument("--attention", choices=["plain", "sdpa"], default="plain")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused AdamW")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--many", metavar="FILE")
    return parser


def run(options):
    """Does one work and answers with what it took."""
    options.ways = {"released": Released, "lean": Lean}[options.variant]
    Block.fused_attention = options.attention == "sdpa"
    on_gpu = options.device == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    torch.set_default_device(options.device)
    torch.manual_seed(0)
    cast = (
        torch.autocast(options.device, dtype=torch.bfloat16)
        if options.dtype == "bf16"
        else contextlib.nullcontext()
    )
    if on_gpu:
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    step = WORKS[options.work](options)

    def once():
        with cast:
            step()
        wait()

    for _ in range(options.warmup):
        once()
    ready = time.perf_counter() - started
    seconds = []
    for _ in range(options.repeat):
        started = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - started)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer = {"seconds": seconds, "warmup": ready, "peak_mib": memory, "torch": torch.__version__}
    if on_gpu:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        answer["gpu_mib"] = float(subprocess.check_output(query, text=True).split()[0])
    return answer


def main():
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    if options.many is None:
        print(json.dumps(run(options)))
        return
    for line in open(options.many):
        try:
            answer = run(parser().parse_args(line.split()))
        except Exception as error:
            answer = {"seconds": [], "error": str(error).splitlines()[0]}
        print(json.dumps(answer), flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
