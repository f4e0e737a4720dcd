//! Runs the examples.

#[path = "../examples/any_backend.rs"]
mod backend;
#[path = "../examples/distill.rs"]
mod distill;
#[path = "../examples/objective.rs"]
mod objective;
#[path = "../examples/watch.rs"]
mod watch;

#[test]
fn a_flow_is_distilled_and_writes_in_one_step() {
    distill::main().unwrap();
}

#[test]
fn an_objective_of_ones_own_trains() {
    objective::main().unwrap();
}

#[test]
fn the_denoising_can_be_watched() {
    watch::main().unwrap();
}

#[test]
fn training_is_generic_over_the_backend() {
    backend::main().unwrap();
}
