//! Numbers for objects: what a guest calls a node or a handle.
//!
//! A number is a slot of the table and the slot's generation. A slot is used again, its number is
//! not: a number that was given back is unknown from then on.
//!
//! Tables are cut into [`SHARDS`] parts with a lock each, so that queues do not wait for one
//! another. [`Slots`] is one of them.

/// Parts of a table.
pub(crate) const SHARDS: usize = 32;

/// Below this many slots a part keeps its memory.
const SMALL: usize = 256;

/// An object that knows its number.
pub(crate) trait Numbered {
    /// The number that it was put in with.
    fn number(&self) -> u64;
}

/// A part of a table. Costs 8 bytes a shared object, and as many for each one that is gone.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    objects: Vec<Option<T>>,
    free: Vec<Free>,
    /// The generation that new slots begin with: that of no number given before.
    first_generation: u32,
}

/// A slot to be used again.
#[derive(Debug, Clone, Copy)]
struct Free {
    index: u32,
    generation: u32,
}

/// Where a number points.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    index: usize,
    generation: u32,
}

impl Place {
    /// The number is never 0: slots are counted from 1.
    fn number(self) -> Option<u64> {
        let slot = self
            .index
            .checked_mul(SHARDS)?
            .checked_add(self.shard)?
            .checked_add(1)?;
        let slot = u32::try_from(slot).ok()?;
        Some((u64::from(self.generation) << 32) | u64::from(slot))
    }

    fn of(number: u64) -> Option<Self> {
        let generation = u32::try_from(number >> 32).ok()?;
        let slot = usize::try_from(number & u64::from(u32::MAX))
            .ok()?
            .checked_sub(1)?;
        Some(Self {
            shard: slot.checked_rem(SHARDS)?,
            index: slot.checked_div(SHARDS)?,
            generation,
        })
    }
}

/// The part that a number's object is in, if it is a number.
pub(crate) fn shard_of(number: u64) -> Option<usize> {
    Place::of(number).map(|place| place.shard)
}

impl<T: Numbered> Slots<T> {
    /// Without any. The first object put into part 0 has the number 1.
    pub(crate) fn new() -> Self {
        Self {
            objects: Vec::new(),
            free: Vec::new(),
            first_generation: 0,
        }
    }

    /// Puts an object into this part, which is the `shard`-th, made with the number it gets. `None`
    /// when there are no more numbers.
    pub(crate) fn insert(&mut self, shard: usize, make: impl FnOnce(u64) -> T) -> Option<&T> {
        let (index, generation) = match self.free.last() {
            Some(free) => (usize::try_from(free.index).ok()?, free.generation),
            None => (self.objects.len(), self.first_generation),
        };
        let place = Place {
            shard,
            index,
            generation,
        };
        let object = make(place.number()?);
        if self.free.pop().is_none() {
            self.objects.push(None);
        }
        Some(self.objects.get_mut(index)?.insert(object))
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.objects.len().saturating_sub(self.free.len())
    }

    /// All objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.objects.iter().flatten()
    }

    /// The object with this number, if it was not taken out. The number has to be of this part.
    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        let place = Place::of(number)?;
        let object = self.objects.get(place.index)?.as_ref()?;
        (object.number() == number).then_some(object)
    }

    /// The object that has a slot now: the lower half of its number.
    pub(crate) fn at(&self, slot: u32) -> Option<&T> {
        let place = Place::of(u64::from(slot))?;
        self.objects.get(place.index)?.as_ref()
    }

    /// Takes an object out. Its number is never given again, short of 2^32 uses of one slot.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        self.get(number)?;
        let place = Place::of(number)?;
        let object = self.objects.get_mut(place.index)?.take()?;
        self.free.push(Free {
            index: u32::try_from(place.index).ok()?,
            generation: place.generation.wrapping_add(1),
        });
        if self.free.len() == self.objects.len() && self.objects.len() > SMALL {
            self.give_up_slots();
        }
        Some(object)
    }

    /// Gives the memory of slots back that are all free.
    fn give_up_slots(&mut self) {
        let used = self.free.iter().map(|free| free.generation).max();
        self.first_generation = used.unwrap_or(self.first_generation);
        self.objects = Vec::new();
        self.free = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Numbered for u64 {
        fn number(&self) -> u64 {
            *self
        }
    }

    /// A table of all parts, filled in turns.
    struct Table(Vec<Slots<u64>>);

    impl Table {
        fn new() -> Self {
            Self((0..SHARDS).map(|_| Slots::new()).collect())
        }

        fn fill(&mut self, count: usize) -> Vec<u64> {
            (0..count)
                .map(|turn| turn % SHARDS)
                .map(|shard| *self.0[shard].insert(shard, |number| number).unwrap())
                .collect()
        }

        fn get(&self, number: u64) -> Option<u64> {
            self.0[shard_of(number)?].get(number).copied()
        }

        fn remove(&mut self, number: u64) -> Option<u64> {
            self.0[shard_of(number)?].remove(number)
        }
    }

    #[test]
    fn the_first_number_is_one_and_none_is_zero() {
        let mut table = Table::new();
        let numbers = table.fill(1000);
        assert_eq!(numbers[0], 1);
        let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), 1000);
        assert!(!distinct.contains(&0));
        for number in numbers {
            assert_eq!(table.get(number), Some(number));
            let slot = u32::try_from(number).unwrap();
            assert_eq!(table.0[shard_of(number).unwrap()].at(slot), Some(&number));
        }
        assert_eq!(table.get(0), None);
        assert_eq!(table.get(u64::MAX), None);
    }

    #[test]
    fn a_table_that_was_emptied_gives_its_memory_back_and_no_number_twice() {
        let mut table = Table::new();
        let count = SHARDS * (SMALL + 1);
        let old = table.fill(count);
        for number in &old {
            assert_eq!(table.remove(*number), Some(*number));
        }
        assert!(table.0.iter().all(|part| part.objects.capacity() == 0));
        let new: std::collections::BTreeSet<u64> = table.fill(count).into_iter().collect();
        assert!(old.iter().all(|number| !new.contains(number)));
    }

    #[test]
    fn a_number_is_unknown_once_its_object_is_gone_also_when_the_slot_is_used_again() {
        let mut table = Table::new();
        let old = table.fill(SHARDS);
        for number in &old {
            assert!(table.remove(*number).is_some());
            assert!(table.remove(*number).is_none(), "only once");
        }
        let new = table.fill(SHARDS);
        assert!(
            old.iter()
                .all(|number| !new.contains(number) && table.get(*number).is_none())
        );
        assert!(table.0.iter().all(|part| part.objects.len() == 1));
    }
}
