//! What holds in many orders of shards that share a directory.

use hvlp_models::{directory, guarantee, last_value};

#[test]
fn who_remembers_an_answer_finds_a_shard_that_has_joined() {
    directory::of_one_in_every_order(2);
}

#[test]
fn a_topic_that_dies_and_is_born_again_is_found_by_who_remembers_it() {
    directory::of(3, 4, 20_000);
}

#[test]
fn what_is_published_behind_a_subscribe_arrives() {
    guarantee::of(1, 4_000);
}

#[test]
fn what_is_published_behind_subscribes_on_two_shards_arrives() {
    guarantee::of(2, 4_000);
}

#[test]
fn who_subscribes_gets_the_last_value_and_every_later_one() {
    last_value::of(1, 4_000);
    last_value::of(2, 2_000);
}
