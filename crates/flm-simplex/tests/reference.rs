//! The schedule and the flow-map weights agree with the published implementation.
//!
//! `golden/` holds every 50th entry of the reference's tables and its pinned times. The full
//! tables are compared too if they exist, in `../shared` next to the repository or in the folder
//! named by `FLM_SHARED`.

use std::path::PathBuf;

use flm_simplex::Schedule;
use flm_simplex::flow_map::semigroup_weight;
use safetensors::SafeTensors;
use serde_json::Value;

/// Tolerance for times; a network's time embedding, in f32, cannot resolve smaller differences.
const TIME_TOLERANCE: f64 = 1e-6;

fn golden(text: &str) -> Value {
    serde_json::from_str(text).expect("golden files are JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list of numbers");
    list.iter()
        .map(|number| number.as_f64().expect("a number"))
        .collect()
}

/// Compares both directions of the schedule of `vocab_size` with values at 0, 1/n, …, 1.
fn compare_tables(vocab_size: usize, tau_of_t: &[f64], t_of_tau: &[f64]) {
    let schedule = Schedule::new(vocab_size).unwrap();
    let last = (tau_of_t.len() - 1) as f64;
    for (i, (tau, t)) in tau_of_t.iter().zip(t_of_tau).enumerate() {
        let at = i as f64 / last;
        let found = schedule.tau_of_t(at);
        assert!(
            (found - tau).abs() < TIME_TOLERANCE,
            "V = {vocab_size}: τ({at}) = {found}, expected {tau}"
        );
        let found = schedule.t_of_tau(at);
        assert!(
            (found - t).abs() < TIME_TOLERANCE,
            "V = {vocab_size}: t({at}) = {found}, expected {t}"
        );
    }
}

#[test]
fn schedules_agree_at_twenty_one_times() {
    let golden = golden(include_str!("golden/schedule.json"));
    let tables = golden["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 5);
    for table in tables {
        let vocab_size = table["vocab_size"].as_u64().unwrap() as usize;
        compare_tables(
            vocab_size,
            &numbers(&table["tau_of_t"]),
            &numbers(&table["t_of_tau"]),
        );
    }
}

#[test]
fn schedules_agree_on_the_full_tables() {
    let shared = std::env::var_os("FLM_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = shared.join("parity/model/expected.safetensors");
    let Ok(bytes) = std::fs::read(&path) else {
        #[expect(
            clippy::print_stderr,
            reason = "a test that checks nothing must say so"
        )]
        {
            eprintln!("skipped: {} does not exist", path.display());
        }
        return;
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let table = |name: String| -> Vec<f64> {
        let bytes = file.tensor(&name).unwrap().data().to_vec();
        bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    for vocab_size in [27, 61, 8192, 30_522, 50_258] {
        let tau_of_t = table(format!("tau_of_t.{vocab_size}"));
        assert_eq!(tau_of_t.len(), 1001);
        compare_tables(
            vocab_size,
            &tau_of_t,
            &table(format!("t_of_tau.{vocab_size}")),
        );
    }
}

#[test]
fn pinned_times_weights_and_derivatives_agree() {
    let golden = golden(include_str!("golden/flow_map.json"));
    let read = |name: &str| numbers(&golden[name]);
    let schedule = Schedule::new(61).unwrap();
    for (tau, t) in [("tau_s", "s"), ("tau_u", "u"), ("tau_t", "t")] {
        for (tau, t) in read(tau).into_iter().zip(read(t)) {
            assert!(
                (schedule.t_of_tau(tau) - t).abs() < TIME_TOLERANCE,
                "t({tau}), expected {t}"
            );
        }
    }
    for (t, slope) in [("s", "d_tau_d_t_at_s"), ("t", "d_tau_d_t_at_t")] {
        for (t, slope) in read(t).into_iter().zip(read(slope)) {
            // The reference rounds t and dτ/dt to f32; the slope changes by about fifty per unit
            // of t.
            let found = schedule.dtau_dt(t);
            assert!(
                (found / slope - 1.0).abs() < 1e-5,
                "dτ/dt at {t} = {found}, expected {slope}"
            );
        }
    }
    let (s, u, t, gamma) = (read("s"), read("u"), read("t"), read("semigroup_gamma"));
    for i in 0..gamma.len() {
        // Differences of f32 times down to 0.04: 6e-8/0.04 relative.
        let found = semigroup_weight(s[i], u[i], t[i]);
        assert!(
            (found / gamma[i] - 1.0).abs() < 2e-6,
            "γ = {found}, expected {}",
            gamma[i]
        );
    }
}
