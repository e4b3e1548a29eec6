//! Which CPU the generator and its target run on. Both on one would measure the scheduler.

use serde::Serialize;

use crate::machine::{self, Watched};

/// Where the two sides of a run are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pins {
    /// CPUs that the broker or relay may use; empty if not known.
    pub broker: Vec<usize>,
    /// CPUs that this generator may use.
    pub generator: Vec<usize>,
}

impl Pins {
    /// Whether both are tied to the same CPU, and to it alone.
    pub fn collide(&self) -> bool {
        self.generator.len() == 1 && self.generator == self.broker
    }

    /// The same generator beside a relay on `cpu`.
    pub fn beside_relay(&self, cpu: Option<usize>) -> Self {
        Self {
            broker: cpu.into_iter().collect(),
            generator: self.generator.clone(),
        }
    }
}

/// Pins the calling thread, the generator, to the CPU that was asked for, or else to the last one
/// that it may use and that is not the broker's.
///
/// # Errors
/// There is no such CPU.
pub fn pin_generator(asked: Option<usize>, broker: Option<Watched>) -> anyhow::Result<Pins> {
    let broker = broker.map(Watched::cpus).unwrap_or_default();
    if let Some(cpu) = asked.or_else(|| choose_generator(&machine::own_cpus(), &broker)) {
        machine::pin_thread(cpu)?;
    }
    Ok(Pins {
        broker,
        generator: machine::own_cpus(),
    })
}

/// The CPU of a relay: what was asked for, the broker's if it has just one, or another than the
/// generator's.
pub fn relay_cpu(asked: Option<usize>, pins: &Pins) -> Option<usize> {
    asked.or_else(|| choose_relay(pins, machine::cpu_count()))
}

/// A CPU for a second generator that is neither the first one's nor one of the broker's, whose are
/// `pins`. Of a broker whose CPUs are not known, all may be.
pub fn load_cpu(allowed: &[usize], pins: &Pins) -> Option<usize> {
    let is_free = |cpu: &usize| !pins.generator.contains(cpu) && !pins.broker.contains(cpu);
    let free = allowed.iter().copied().filter(is_free);
    free.max().filter(|_| !pins.broker.is_empty())
}

fn choose_generator(allowed: &[usize], broker: &[usize]) -> Option<usize> {
    let pinned_broker = (broker.len() == 1).then(|| broker[0]);
    let others = allowed
        .iter()
        .copied()
        .filter(|&cpu| Some(cpu) != pinned_broker);
    others.max().filter(|_| allowed.len() > 1)
}

fn choose_relay(pins: &Pins, cpu_count: usize) -> Option<usize> {
    match pins.broker[..] {
        [cpu] => Some(cpu),
        _ => (0..cpu_count).find(|cpu| pins.generator.len() == 1 && !pins.generator.contains(cpu)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_keeps_away_from_a_pinned_broker() {
        assert_eq!(choose_generator(&[0, 1], &[0]), Some(1));
        assert_eq!(choose_generator(&[0, 1], &[1]), Some(0));
        assert_eq!(choose_generator(&[0, 1, 2, 3], &[0, 1, 2, 3]), Some(3));
        assert_eq!(choose_generator(&[1], &[]), None);
    }

    #[test]
    fn the_relay_takes_the_brokers_cpu_or_another_than_the_generators() {
        let pins = |broker: &[usize], generator: &[usize]| Pins {
            broker: broker.to_vec(),
            generator: generator.to_vec(),
        };
        assert_eq!(choose_relay(&pins(&[2], &[3]), 4), Some(2));
        assert_eq!(choose_relay(&pins(&[], &[0]), 4), Some(1));
        assert_eq!(choose_relay(&pins(&[0, 1], &[1]), 2), Some(0));
        assert_eq!(choose_relay(&pins(&[], &[0]), 1), None);
    }

    #[test]
    fn a_second_generator_takes_a_cpu_that_nobody_else_may_use() {
        let pins = |broker: &[usize]| Pins {
            broker: broker.to_vec(),
            generator: vec![3],
        };
        assert_eq!(load_cpu(&[0, 1, 2, 3], &pins(&[0, 2])), Some(1));
        assert_eq!(load_cpu(&[0, 3], &pins(&[0])), None);
        assert_eq!(load_cpu(&[0, 1, 2, 3], &pins(&[])), None);
    }

    #[test]
    fn only_two_single_equal_cpus_collide() {
        let collide = |broker: &[usize], generator: &[usize]| {
            Pins {
                broker: broker.to_vec(),
                generator: generator.to_vec(),
            }
            .collide()
        };
        assert!(collide(&[1], &[1]));
        assert!(!collide(&[0], &[1]));
        assert!(!collide(&[0, 1], &[0, 1]));
        assert!(!collide(&[], &[]));
    }
}
