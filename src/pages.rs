//! A table that grows page by page, so that nothing in it ever moves: growing costs the same
//! however long the table is, and leaves no holes in the heap where shorter tables have been.

use std::fmt;

/// Entries of a page.
const PAGE_LEN: usize = 256;

/// Values by index; those that were never set are `T::default()`.
pub(crate) struct Pages<T> {
    pages: Vec<Box<[T; PAGE_LEN]>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T: Default> Pages<T> {
    /// The value at `index`; `None` if the table does not reach so far.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        Some(&self.pages.get(index / PAGE_LEN)?[index % PAGE_LEN])
    }

    /// As `get`, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        Some(&mut self.pages.get_mut(index / PAGE_LEN)?[index % PAGE_LEN])
    }

    /// The value at `index`, in a table that grows as far as that.
    pub(crate) fn reach(&mut self, index: usize) -> &mut T {
        while self.pages.len() <= index / PAGE_LEN {
            let page: Vec<T> = (0..PAGE_LEN).map(|_| T::default()).collect();
            let page = page.into_boxed_slice().try_into();
            self.pages.push(page.ok().expect("a page is that long"));
        }
        &mut self.pages[index / PAGE_LEN][index % PAGE_LEN]
    }

    /// All values as far as the table reaches, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.pages.len() * PAGE_LEN;
        f.debug_struct("Pages").field("len", &len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_where_it_is_and_all_others_are_defaults() {
        let mut pages = Pages::default();
        assert_eq!(pages.get(0), None);
        assert_eq!(pages.get_mut(700), None);
        *pages.reach(3) = 7_u32;
        let address = std::ptr::from_ref(pages.get(3).unwrap());
        *pages.reach(100_000) = 8;
        assert_eq!(std::ptr::from_ref(pages.get(3).unwrap()), address);
        assert_eq!(
            (pages.get(100_000), pages.get(99_999)),
            (Some(&8), Some(&0))
        );
        assert_eq!(pages.iter().copied().sum::<u32>(), 15);
        assert_eq!(pages.get(200_000), None);
    }
}
