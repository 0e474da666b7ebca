//! In what order the stages of a kernel come to rows, such as the largest element, then the sum of exponentials, then the quotients.
//!
//! A stage of one row ends in a chain of dependent operations, which the same stage of the next row hides. What comes from beyond the
//! caches of a core comes fastest while something is worked on, and asked for no more than some kilobytes ahead.

use crate::array::Element;
use crate::kernels::stream;
use std::ops::Range;

/// Most rows, and elements of more than one, that a stage takes before the next one does: they stay in the first-level cache.
pub(super) const GROUP: usize = 32;
const NEAR: usize = 1 << 12;
/// Rows from one stage to the next where elements come from afar.
pub(super) const LAG: usize = 4;
/// Elements of the longest rows that are worked on so.
pub(super) const LONGEST: usize = 512;
/// Bytes of an array from which on it comes from beyond the caches of a core.
const FAR: usize = 1 << 20;

/// One of the two orders, as a type: each has an instance of a kernel to itself.
pub(super) trait Order {
    const STAGGERED: bool;

    /// Asks for a row that lies some rows after that with which `x` begins, of so many elements.
    #[inline(always)]
    fn ask<T: Element>(x: &[T], c: usize) {
        if Self::STAGGERED {
            stream::ask(x, stream::ahead::<T>(), c);
        }
    }

    /// The same for a row that is to be written.
    #[inline(always)]
    fn claim<T: Element>(y: &[T], c: usize) {
        if Self::STAGGERED {
            stream::claim(y, stream::ahead::<T>(), c);
        }
    }

    /// The rows of which stages keep what the next will need, at most [`GROUP`] of them: `c` elements each.
    fn together(c: usize) -> usize {
        if Self::STAGGERED { LAG } else { 1 << (NEAR / c).clamp(1, GROUP).ilog2() }
    }
}

/// Each stage over a group of rows: what is near is worked on fastest so.
pub(super) struct Grouped;
/// Row by row, each stage some rows behind the one before: elements come from afar while those before them are worked on.
pub(super) struct Staggered;
impl Order for Grouped {
    const STAGGERED: bool = false;
}
impl Order for Staggered {
    const STAGGERED: bool = true;
}

/// Whether row `r` is the last of those that keep `together`.
#[inline(always)]
pub(super) fn ends(r: usize, rows: usize, together: usize) -> bool {
    (r + 1) & (together - 1) == 0 || r + 1 == rows
}

/// Runs stages for each of `$rows` rows of `$c` elements. A stage finds what the one before it left of a row at `$r % GROUP`.
macro_rules! stages {
    ($order:ty, $c:expr, $rows:expr, |$r:ident| $first:expr, $second:expr $(, $third:expr)?) => {{
        use $crate::kernels::rows::order::{LAG, Order as Any, groups};
        let rows = $rows;
        if <$order as Any>::STAGGERED {
            for at in 0..rows + 2 * LAG {
                if at < rows {
                    let $r = at;
                    $first;
                }
                if (LAG..rows + LAG).contains(&at) {
                    let $r = at - LAG;
                    $second;
                }
                $(if at >= 2 * LAG {
                    let $r = at - 2 * LAG;
                    $third;
                })?
            }
        } else {
            for group in groups($c, rows) {
                for $r in group.clone() {
                    $first;
                }
                for $r in group.clone() {
                    $second;
                }
                $(for $r in group {
                    $third;
                })?
            }
        }
    }};
}
pub(super) use stages;

/// The rows from 0 to `rows` in groups.
pub(super) fn groups(c: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let each = Grouped::together(c);
    (0..rows).step_by(each).map(move |first| first..rows.min(first + each))
}

/// Whether rows of `c` elements, `n` in all, are better worked on in [`Staggered`] order: where they come from beyond the caches of a
/// core, and are short.
pub(super) fn comes_from_afar<T>(c: usize, n: usize) -> bool {
    c <= LONGEST && n.saturating_mul(size_of::<T>()) >= FAR
}
