//! Writes `tests/golden/fmlm.safetensors` from the full fixtures; see the root of `flm_tests`.

use flm_tests::{fixture, golden};

fn main() -> std::io::Result<()> {
    match fixture::shared() {
        Some(shared) => std::fs::write(golden::path(), golden::bytes(&golden::make(&shared))),
        None => Err(std::io::ErrorKind::NotFound.into()),
    }
}
