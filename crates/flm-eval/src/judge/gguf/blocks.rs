//! GGUF's storage types: blocks of quantized numbers.

use burn::tensor::{bf16, f16};

/// A storage type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    number: u32,
    name: &'static str,
    /// Numbers in a block.
    pub(super) numbers: usize,
    /// Bytes in a block.
    pub(super) bytes: usize,
    /// Decodes a block and appends its numbers.
    pub(super) read: fn(&[u8], &mut Vec<f32>),
}

const KINDS: [Kind; 11] = [
    kind(0, "F32", 1, 4, |b, out| {
        out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    }),
    kind(1, "F16", 1, 2, |b, out| out.push(half(b, 0))),
    kind(30, "BF16", 1, 2, |b, out| {
        out.push(bf16::from_le_bytes([b[0], b[1]]).to_f32());
    }),
    kind(2, "Q4_0", 32, 18, |b, out| {
        nibbles(&b[2..], |q| (f32::from(q) - 8.0) * half(b, 0), out);
    }),
    kind(3, "Q4_1", 32, 20, |b, out| {
        nibbles(&b[4..], |q| f32::from(q) * half(b, 0) + half(b, 2), out);
    }),
    kind(6, "Q5_0", 32, 22, |b, out| {
        fives(&b[2..], |q| (f32::from(q) - 16.0) * half(b, 0), out);
    }),
    kind(7, "Q5_1", 32, 24, |b, out| {
        fives(&b[4..], |q| f32::from(q) * half(b, 0) + half(b, 2), out);
    }),
    kind(8, "Q8_0", 32, 34, |b, out| {
        out.extend(b[2..].iter().map(|&q| f32::from(q as i8) * half(b, 0)));
    }),
    kind(12, "Q4_K", 256, 144, |b, out| {
        scaled(b, |run, i| nibble(b[16 + run / 2 * 32 + i], run), out);
    }),
    kind(13, "Q5_K", 256, 176, |b, out| {
        let high = |run: usize, i: usize| (b[16 + i] >> run & 1) << 4;
        let low = |run: usize, i: usize| nibble(b[48 + run / 2 * 32 + i], run);
        scaled(b, |run, i| low(run, i) | high(run, i), out);
    }),
    kind(14, "Q6_K", 256, 210, sixes),
];

const fn kind(
    number: u32,
    name: &'static str,
    numbers: usize,
    bytes: usize,
    read: fn(&[u8], &mut Vec<f32>),
) -> Kind {
    Kind {
        number,
        name,
        numbers,
        bytes,
        read,
    }
}

impl Kind {
    /// Returns the type with this id.
    pub(super) fn of(number: u32) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.number == number)
    }
}

/// Returns the names of all supported types.
pub(super) fn supported() -> String {
    KINDS.map(|kind| kind.name).join(", ")
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Returns the low nibble of a byte in an even run of numbers, the high nibble in an odd one.
fn nibble(byte: u8, run: usize) -> u8 {
    if run.is_multiple_of(2) {
        byte & 15
    } else {
        byte >> 4
    }
}

/// Decodes sixteen bytes of two numbers each: all low nibbles, then all high nibbles.
fn nibbles(bytes: &[u8], value: impl Fn(u8) -> f32, out: &mut Vec<f32>) {
    for run in 0..2 {
        out.extend(bytes[..16].iter().map(|&byte| value(nibble(byte, run))));
    }
}

/// Like `nibbles`, with the fifth bits of all numbers in the four bytes before them.
fn fives(bytes: &[u8], value: impl Fn(u8) -> f32, out: &mut Vec<f32>) {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (i, run) in (0..32).map(|i| (i, i / 16)) {
        let fifth = (high >> i & 1) as u8;
        out.push(value(nibble(bytes[4 + i % 16], run) | fifth << 4));
    }
}

/// Decodes eight runs of 32 numbers. Each run has a scale and a minimum of six bits, in units of
/// two f16 numbers.
fn scaled(bytes: &[u8], quantum: impl Fn(usize, usize) -> u8, out: &mut Vec<f32>) {
    let packed = &bytes[4..16];
    for run in 0..8 {
        let (scale, least) = if run < 4 {
            (packed[run] & 63, packed[run + 4] & 63)
        } else {
            (
                (packed[run + 4] & 15) | (packed[run - 4] >> 6) << 4,
                (packed[run + 4] >> 4) | (packed[run] >> 6) << 4,
            )
        };
        let scale = half(bytes, 0) * f32::from(scale);
        let least = half(bytes, 2) * f32::from(least);
        out.extend((0..32).map(|i| scale * f32::from(quantum(run, i)) - least));
    }
}

/// Decodes two halves of 128 six-bit numbers. Four bits are in one byte and two in another; sixteen
/// scales and one unit follow at the end.
fn sixes(bytes: &[u8], out: &mut Vec<f32>) {
    let unit = half(bytes, 208);
    for part in 0..2 {
        let (four, two) = (&bytes[part * 64..], &bytes[128 + part * 32..]);
        let scales = &bytes[192 + part * 8..];
        for run in 0..4 {
            for i in 0..32 {
                let low = nibble(four[run % 2 * 32 + i], run / 2);
                let high = (two[i] >> (2 * run) & 3) << 4;
                let scale = f32::from(scales[run * 2 + i / 16] as i8);
                out.push(unit * scale * (f32::from(low | high) - 32.0));
            }
        }
    }
}
