//! Numbers for objects: what a guest calls a node or a handle.
//!
//! A number is a slot of the table and the slot's generation. A slot is used again, its number is
//! not: a number that was given back is unknown from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Tables are cut into this many parts with a lock each, so that queues do not wait for one another.
const SHARDS: usize = 32;

/// Below this many slots a part keeps its memory.
const SMALL: usize = 256;

/// A table of shared objects.
#[derive(Debug)]
pub(crate) struct SlotTable<T> {
    shards: [RwLock<Shard<T>>; SHARDS],
    next_shard: AtomicUsize,
    live: AtomicUsize,
    limit: usize,
}

#[derive(Debug)]
struct Shard<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    /// The generation that new slots begin with: that of no number given before.
    first_generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    object: Option<Arc<T>>,
}

impl<T> Shard<T> {
    /// Gives the memory of slots back that are all free.
    fn give_up_slots(&mut self) {
        let used = self.slots.iter().map(|slot| slot.generation).max();
        self.first_generation = used.unwrap_or(self.first_generation);
        self.slots = Vec::new();
        self.free = Vec::new();
    }
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
        let shard = slot.checked_rem(SHARDS)?;
        let index = slot.checked_div(SHARDS)?;
        Some(Self {
            shard,
            index,
            generation,
        })
    }
}

impl<T> SlotTable<T> {
    /// A table of at most `limit` objects. The first one put in has the number 1.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| {
                RwLock::new(Shard {
                    slots: Vec::new(),
                    free: Vec::new(),
                    first_generation: 0,
                })
            }),
            next_shard: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            limit,
        }
    }

    /// Puts an object in, made with the number it gets. `None` when the table is full.
    pub(crate) fn insert(&self, make: impl FnOnce(u64) -> T) -> Option<Arc<T>> {
        if self.live.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let inserted = self.insert_unlimited(make);
        if inserted.is_none() {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        inserted
    }

    fn insert_unlimited(&self, make: impl FnOnce(u64) -> T) -> Option<Arc<T>> {
        let number = self
            .next_shard
            .fetch_add(1, Ordering::Relaxed)
            .checked_rem(SHARDS)?;
        let mut shard = self.shards.get(number)?.write();
        let index = match shard.free.pop() {
            Some(index) => index,
            None => {
                let generation = shard.first_generation;
                shard.slots.push(Slot {
                    generation,
                    object: None,
                });
                shard.slots.len().checked_sub(1)?
            }
        };
        let slot = shard.slots.get_mut(index)?;
        let place = Place {
            shard: number,
            index,
            generation: slot.generation,
        };
        let object = Arc::new(make(place.number()?));
        slot.object = Some(Arc::clone(&object));
        Some(object)
    }

    /// The object with this number, if it was not taken out.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<T>> {
        let place = Place::of(number)?;
        let shard = self.shards.get(place.shard)?.read();
        let slot = shard.slots.get(place.index)?;
        if slot.generation != place.generation {
            return None;
        }
        slot.object.clone()
    }

    /// Takes an object out, if `condition` holds for it. Its number is never given again, short of
    /// 2^32 uses of one slot.
    pub(crate) fn remove_if(
        &self,
        number: u64,
        condition: impl FnOnce(&T) -> bool,
    ) -> Option<Arc<T>> {
        let place = Place::of(number)?;
        let mut shard = self.shards.get(place.shard)?.write();
        let slot = shard.slots.get_mut(place.index)?;
        if slot.generation != place.generation || !slot.object.as_deref().is_some_and(condition) {
            return None;
        }
        let object = slot.object.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        shard.free.push(place.index);
        if shard.free.len() == shard.slots.len() && shard.slots.len() > SMALL {
            shard.give_up_slots();
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
        Some(object)
    }

    /// How many objects there are.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_one_and_none_is_zero() {
        let table = SlotTable::new(1000);
        let numbers: Vec<u64> = (0..1000)
            .map(|_| *table.insert(|number| number).unwrap())
            .collect();
        assert_eq!(numbers[0], 1);
        let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), 1000);
        assert!(!distinct.contains(&0));
        assert!(
            numbers
                .iter()
                .all(|number| table.get(*number).as_deref() == Some(number))
        );
        assert_eq!(table.get(0), None);
        assert_eq!(table.get(u64::MAX), None);
    }

    #[test]
    fn a_table_that_was_emptied_gives_its_memory_back_and_no_number_twice() {
        let table = SlotTable::new(usize::MAX);
        let count = SHARDS * (SMALL + 1);
        let old: Vec<u64> = (0..count).map(|_| *table.insert(|n| n).unwrap()).collect();
        old.iter()
            .for_each(|number| drop(table.remove_if(*number, |_| true)));
        assert!(
            table
                .shards
                .iter()
                .all(|shard| shard.read().slots.capacity() == 0)
        );
        let new: std::collections::BTreeSet<u64> =
            (0..count).map(|_| *table.insert(|n| n).unwrap()).collect();
        assert!(old.iter().all(|number| !new.contains(number)));
    }

    #[test]
    fn a_number_is_unknown_once_its_object_is_gone_also_when_the_slot_is_used_again() {
        let table = SlotTable::new(SHARDS);
        let old: Vec<u64> = (0..SHARDS).map(|_| *table.insert(|n| n).unwrap()).collect();
        assert!(table.insert(|n| n).is_none(), "the table is full");
        for number in &old {
            assert!(table.remove_if(*number, |_| false).is_none());
            assert!(table.remove_if(*number, |_| true).is_some());
            assert!(table.remove_if(*number, |_| true).is_none(), "only once");
        }
        assert_eq!(table.live(), 0);
        let new: Vec<u64> = (0..SHARDS).map(|_| *table.insert(|n| n).unwrap()).collect();
        assert!(
            old.iter()
                .all(|number| !new.contains(number) && table.get(*number).is_none())
        );
    }
}
