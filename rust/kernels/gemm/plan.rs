//! How a product is computed: which way, in which pieces, and what memory of its own that takes.
//!
//! Invariant: it follows from the shape and strides of the whole and the instruction set alone, but for the number of parts, which
//! no bit depends on.

use super::{Gemm, Matrix, dots, panels, split};
use crate::kernels::parallel;
use crate::kernels::simd::{Level, level};
use crate::kernels::stream::LINE;

/// Multiply-adds, some 25 µs, from which on a product is shared: what one of fewer gains, the operations around it lose to lines that
/// lie in the other processor's cache.
const SHARED: usize = 1 << 21;
/// Multiply-adds up to which packing costs more than it saves, if the columns fill the tiles: of few rows, and of many.
const MOST_OF_FEW_ROWS: usize = 1 << 20;
const MOST: usize = 1 << 18;
/// Elements that a row-major b spans, a megabyte, up to which it is read panel by panel: down the columns of a larger one nothing is
/// fetched ahead.
pub const CLOSE: usize = 1 << 18;
/// Multiply-adds up to which it does even where the last tile is nearly empty.
const TINY: usize = 1 << 15;
/// Rows up to which it costs more to pack b, where that lies transposed, than to add up lanes at the end of an inner product, if that is
/// so long, for two or three rows where there are no panels; the crate does well with one row.
const ROWS_OF_DOTS: usize = 8;
const LONG: usize = 256;
const LONG_FOR_FEWER: usize = 32;
/// The same where it would be packed here, if inner products have so many terms for each row, and so many where columns of b do not begin
/// with lines, so that loads reach over two.
const ROWS_UNPACKED: usize = 16;
const TERMS_FOR_EACH: usize = 20;
const TERMS_ACROSS: usize = 55;
/// Rows from which on a copy of b with columns in one piece each, where there are few, is worth its time, unless they can be masked.
const FEW_ROWS: usize = 4;
/// Elements of an output that has few tiles, so that b is read about once, however long it is: it is not packed.
const FEW: usize = 256;
/// Terms from which on the inner dimension is cut, where neither side of the output is long enough, and into how many pieces at most.
const PIECE: usize = 1 << 12;
const MOST_PIECES: usize = 8;
/// Longest inner dimension of an output that is worth a copy of b that lies transposed, and of one of no more than [`FEW`] elements.
const SHORT: usize = 4;
const BRIEF: usize = 16;
/// Bytes of a row, up to which tiles are worth their time by a single column.
const NEAR: usize = 96;

/// Columns of the output whose products take as long, where operands are split, as splitting a row does, if threads share the product,
/// so that each has half of them; and the least terms that are worth it.
const SPLIT: usize = 64;
/// Multiply-adds from which on it is: two threads, each of which splits for itself, gain nothing by less.
const LEAST_SPLIT: usize = 12_000_000;

/// Longest inner dimension of a call to a packed product, which the crate would cut there anyway; of one to a direct product, where b is
/// more than [`CLOSE`], and of integers, of which any is cut so that a panel of b stays in the first-level cache; and of one by a single
/// row or column, which nobody packs.
const DEEPEST: usize = 512;
const DEEPEST_DIRECT: usize = 1 << 10;
const DEEPEST_FAR: usize = 64;
const DEEPEST_INTEGERS: usize = 256;
const DEEPEST_VECTOR: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By inner products of rows of a and columns of b, which are copied if they do not lie in one piece each.
    Dots,
    /// Directly: rows of b are read where they lie.
    Rows,
    /// Directly: cᵀ = bᵀ·aᵀ, since aᵀ has rows that fill tiles.
    Transposed,
    /// Directly: rows of b are copied, and made so wide at least.
    Copied(usize),
    /// b is packed into panels, and a into tiles if it lies transposed.
    Panels,
    /// Both are split into parts of bfloat16.
    Split,
    /// As the crate packs; integers one by one.
    Crate,
}

#[derive(Clone, Copy)]
pub struct Plan {
    pub way: Way,
    /// Inner dimension of a call.
    pub depth: usize,
}

impl Plan {
    pub fn of<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Plan {
        Plan::by(way(a, b), a, b)
    }

    /// The plan that needs no memory from here.
    pub fn without_scratch<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Plan {
        Plan::by(Way::Crate, a, b)
    }

    fn by<T: Gemm>(way: Way, a: &Matrix<T>, b: &Matrix<T>) -> Plan {
        let deepest = match way {
            Way::Rows | Way::Copied(_) if !T::DTYPE.is_float() => DEEPEST_INTEGERS,
            Way::Dots if b.row_stride != 1 => DEEPEST_DIRECT,
            Way::Dots => DEEPEST_VECTOR,
            Way::Crate if a.rows == 1 || b.cols == 1 => DEEPEST_VECTOR,
            Way::Crate | Way::Panels => DEEPEST,
            Way::Split => split::DEEPEST,
            Way::Rows if a.cols.saturating_mul(b.cols) > CLOSE => DEEPEST_FAR,
            Way::Rows | Way::Transposed | Way::Copied(_) => DEEPEST_DIRECT,
        };
        let depth = a.cols.div_ceil(a.cols.div_ceil(deepest));
        Plan { way, depth: if way == Way::Split { depth.next_multiple_of(split::SIDE) } else { depth } }
    }

    /// Elements that a call for one part of the output needs to work in.
    pub fn scratch<T: Gemm>(self, a: &Matrix<T>, b: &Matrix<T>, cut: &Cut) -> usize {
        let largest = || cut.largest(a.rows, b.cols);
        match self.way {
            Way::Dots if b.row_stride != 1 => self.depth * b.cols,
            Way::Dots | Way::Rows | Way::Crate => 0,
            Way::Transposed if a.rows == 1 => 0,
            Way::Transposed => largest().0 * largest().1,
            Way::Copied(least) => self.depth * largest().1.max(least),
            Way::Split => split::scratch(self.depth, largest().1),
            Way::Panels => panels::scratch(a, b, self.depth, largest()),
        }
    }
}

fn way<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Way {
    let (n, width, level) = (b.cols, T::NARROW, level());
    match () {
        _ if !T::DTYPE.is_float() => of_integers(a, b),
        _ if level > Level::Baseline && (is_quick_by_dots(a, b) || is_quick_by_turned_dots(a, b)) => Way::Dots,
        _ if level >= Level::Avx512 && turned(b) && is_quick_transposed(a, b) => Way::Transposed,
        _ => match of_few_elements(a, b) {
            Some(way) => way,
            None if n < width && level >= Level::Avx512 => of_few_columns(a, b),
            None if level == Level::Baseline || n == 1 => Way::Crate,
            None if n < width => of_padded_columns(a, b),
            None => of_wide_rows(a, b),
        },
    }
}

/// Whether rows of a and columns of b lie side by side, of few enough rows for packing b to cost more than adding up lanes.
fn is_quick_by_dots<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> bool {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let (rows, terms) = match () {
        _ if T::has_panels() && m * n > FEW => {
            let in_lines = b.col_stride % (LINE / size_of::<T>()) as isize == 0;
            (ROWS_UNPACKED, m.saturating_mul(if in_lines { TERMS_FOR_EACH } else { TERMS_ACROSS }))
        }
        _ if m < FEW_ROWS && !T::has_panels() => (ROWS_OF_DOTS, LONG_FOR_FEWER),
        _ => (ROWS_OF_DOTS, LONG),
    };
    side_by_side(a, b) && (2..=rows).contains(&m) && n > 1 && k >= terms
}

/// Whether b, whose rows lie in order, is so narrow that a copy with columns in one piece each is worth its time.
fn is_quick_by_turned_dots<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> bool {
    let least = if level() >= Level::Avx512 { ROWS_OF_DOTS + 1 } else { FEW_ROWS };
    let ordered = a.col_stride == 1 && b.col_stride == 1 && b.row_stride > 0;
    ordered && a.rows >= least && (2..=dots::COLUMNS).contains(&b.cols) && a.cols >= 4 * T::NARROW
}

/// How an output is made that has few elements, if that decides.
fn of_few_elements<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Option<Way> {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    match () {
        _ if n == 1 => (m.saturating_mul(k) <= FEW).then_some(Way::Rows),
        _ if m * n > FEW => None,
        _ if b.col_stride == 1 && ((m * n).saturating_mul(k) <= TINY || level() > Level::Baseline) => Some(Way::Rows),
        _ => (m > 1 && k <= BRIEF).then_some(Way::Copied(1)),
    }
}

/// Fewer columns than a tile has, which cannot be masked.
fn of_padded_columns<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Way {
    match () {
        _ if a.row_stride == 1 && a.rows >= T::NARROW => Way::Transposed,
        _ if a.rows * b.cols > FEW => Way::Copied(T::NARROW),
        _ => Way::Crate,
    }
}

/// As many columns as a tile has, and more.
fn of_wide_rows<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Way {
    let (m, k, n, width) = (a.rows, a.cols, b.cols, T::NARROW);
    let work = m.saturating_mul(k).saturating_mul(n);
    let has_panels = T::has_panels() && (a.col_stride == 1 || a.row_stride == 1);
    let panels = has_panels && (m >= panels::TALL || (turned(b) && m > 1)) && m * n > FEW;
    let filled = n.next_multiple_of(width) * 8 <= n * 9;
    let most = match () {
        _ if has_panels && m < panels::TALL => usize::MAX,
        _ if m <= width => MOST_OF_FEW_ROWS,
        _ => MOST,
    };
    match () {
        _ if is_quick_split(a, b) => Way::Split,
        _ if panels && turned(b) => Way::Panels,
        _ if b.col_stride != 1 && k <= SHORT && m >= 4 * width => Way::Copied(1),
        _ if b.col_stride != 1 => Way::Crate,
        _ if work <= TINY || (filled && work <= most) => Way::Rows,
        _ if panels => Way::Panels,
        _ => Way::Crate,
    }
}

/// Whether splitting both into parts pays, which must lie as `split::product` wants them.
fn is_quick_split<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> bool {
    let lie = |x: &Matrix<T>| x.col_stride == 1 || (x.row_stride == 1 && x.col_stride > 0);
    let [m, k, n] = [a.rows, a.cols, b.cols].map(|side| side.checked_next_multiple_of(split::SIDE).unwrap_or(side));
    let work = |m: usize, k: usize, n: usize| m.saturating_mul(k).saturating_mul(n);
    let split = work(m, k, n).saturating_add(work(m + n, k, SPLIT));
    let whole = work(a.rows, a.cols, b.cols);
    T::has_split() && whole >= LEAST_SPLIT && a.cols >= SPLIT && split / 15 < whole / 8 && lie(a) && lie(b)
}

/// Whether bᵀ, which lies in order, has few enough rows, or aᵀ few enough terms, to be read as it lies instead of turned for a few rows.
fn is_quick_transposed<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> bool {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    match m {
        1 => k <= BRIEF && k * size_of::<T>() <= NEAR,
        2..=ROWS_OF_DOTS => a.row_stride == 1 && k > BRIEF && (n <= 2 * T::NARROW || !T::has_panels()),
        _ => false,
    }
}

/// Where columns that are not there can be masked out, b is not made as wide as a tile.
#[inline(never)]
fn of_few_columns<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Way {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let panels = || T::has_panels() && (a.col_stride == 1 || a.row_stride == 1) && m * n > FEW;
    match () {
        _ if k > BRIEF && m > n && a.row_stride == 1 => Way::Transposed,
        _ if n == 1 && k <= BRIEF && k * size_of::<T>() <= NEAR => Way::Rows,
        _ if n == 1 => Way::Crate,
        _ if k > SHORT && turned(b) && panels() => Way::Panels,
        _ if b.col_stride == 1 => Way::Rows,
        _ if m * n > FEW => Way::Copied(1),
        _ => Way::Crate,
    }
}

/// Whether b lies transposed.
fn turned<T>(b: &Matrix<T>) -> bool {
    b.row_stride == 1 && b.col_stride > 1
}

/// Whether rows of a, and columns of b, lie side by side.
fn side_by_side<T>(a: &Matrix<T>, b: &Matrix<T>) -> bool {
    a.col_stride == 1 && b.row_stride == 1
}

/// Integers have no other kernels than those here.
fn of_integers<T: Gemm>(a: &Matrix<T>, b: &Matrix<T>) -> Way {
    let (m, k, n, width) = (a.rows, a.cols, b.cols, T::NARROW);
    match () {
        _ if side_by_side(a, b) && m.min(n) == 1 && k >= 2 * width => Way::Dots,
        _ if n < width && k > BRIEF && a.row_stride == 1 && m >= width => Way::Transposed,
        _ if n < width && m * n > FEW && level() < Level::Avx512 => Way::Copied(width),
        _ if n == 1 || b.col_stride == 1 => Way::Rows,
        _ => Way::Copied(1),
    }
}

/// How a product is cut: into rows or columns of the output, owned by one thread each, or else along the inner dimension, by shape alone.
#[derive(Clone, Copy)]
pub struct Cut {
    pub by_rows: bool,
    pub parts: usize,
    long: usize,
    /// Pieces of the inner dimension whose products are summed.
    pub pieces: usize,
}

impl Cut {
    pub fn of<T>(a: &Matrix<T>, b: &Matrix<T>) -> Cut {
        let (m, n) = (a.rows, b.cols);
        // Whatever lies transposed is packed at a cost, so it had better not be packed by every thread. And what a thread writes of a
        // weight's gradient, which is a product by such an a, it will sweep over next.
        let by_rows = match () {
            _ if b.col_stride != 1 && n >= 128 => false,
            _ if a.row_stride == 1 && m >= 128 => true,
            _ => m > n,
        };
        let (long, short) = if by_rows { (m, n) } else { (n, m) };
        let most = most_parts(long, short, m.saturating_mul(a.cols).saturating_mul(n));
        // Outputs of few elements have a kernel of their own in the crate: where a part could be one and the whole is not, the number
        // depends on shape alone.
        let parts = if short <= 8 { most } else { most.min(parallel::num_threads()) };
        let pieces = if most == 1 { (a.cols / PIECE).clamp(1, MOST_PIECES) } else { 1 };
        Cut { by_rows, parts, long, pieces }
    }

    /// The same without pieces of the inner dimension.
    pub fn whole(self) -> Cut {
        Cut { pieces: 1, ..self }
    }

    /// Where part `i` begins. Cuts at multiples of 64, the nearest, keep packed kernels on whole tiles.
    pub fn edge(self, i: usize) -> usize {
        if i == self.parts { self.long } else { (self.long * i / self.parts + 32) / 64 * 64 }
    }

    /// Rows and columns of the largest part.
    fn largest(self, rows: usize, cols: usize) -> (usize, usize) {
        let longest = (0..self.parts).map(|i| self.edge(i + 1) - self.edge(i)).max().unwrap_or(self.long);
        if self.by_rows { (longest, cols) } else { (rows, longest) }
    }
}

/// How many parts a product of `long` by `short` elements and so many multiply-adds is cut into at most. Where an operand is read only
/// once, memory takes eight times as long.
fn most_parts(long: usize, short: usize, work: usize) -> usize {
    let work = if short == 1 { work.saturating_mul(8) } else { work };
    match long {
        _ if work < SHARED => 1,
        96..128 if work >= 1 << 22 => 2,
        0..128 => 1,
        128..512 => 2,
        512..2048 => 4,
        _ => 8,
    }
}
