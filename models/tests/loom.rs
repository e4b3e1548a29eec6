//! What holds in every order of two and three reactors.

use hvlp_models::{doorbell, shutdown, spill};

#[test]
fn who_sleeps_is_woken_by_a_push() {
    doorbell::of(1, 3);
}

#[test]
fn who_sleeps_is_woken_by_each_of_two_that_push() {
    doorbell::of(2, 2);
}

#[test]
fn what_a_full_ring_does_not_take_arrives_once_and_in_order() {
    spill::of(1, 3, 3);
}

#[test]
fn two_spills_to_one_reactor_arrive() {
    spill::of(2, 2, 2);
}

#[test]
fn two_that_are_full_do_not_wait_for_each_other() {
    spill::of_two_that_are_full(2, 2);
}

#[test]
fn nobody_of_two_drains_before_all_has_arrived() {
    shutdown::of(2, 2, 2);
}

#[test]
fn nobody_of_three_drains_before_all_has_arrived() {
    shutdown::of(3, 1, 2);
}
