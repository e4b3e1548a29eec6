//! What holds in many orders of several shards.
