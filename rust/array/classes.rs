//! Size classes of the pool: which blocks there are.

pub const ALIGN: usize = 64;
/// Bytes in front of the elements of a block.
pub const HEADER: usize = 3 * ALIGN;
/// More classes than any size is in.
pub const CLASSES: usize = 256;

/// Size classes: four per power of two from 64 bytes on, and a header, so that powers of two, of which most layers are made, fit and at
/// most a quarter of a block is unused.
pub fn class_of(bytes: usize) -> usize {
    let bytes = bytes.saturating_sub(HEADER);
    if bytes <= ALIGN {
        return 0;
    }
    let log = (bytes - 1).ilog2() as usize;
    let quarter = ((bytes - 1) >> (log - 2)) & 3;
    (log - 6) * 4 + quarter + 1
}

pub fn class_bytes(class: usize) -> usize {
    if class == 0 {
        return HEADER + ALIGN;
    }
    let (log, quarter) = ((class - 1) / 4 + 6, (class - 1) % 4);
    ((1 << log) + ((quarter + 1) << (log - 2))).next_multiple_of(ALIGN) + HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cover_and_waste_at_most_a_quarter() {
        let mut last = 0;
        for class in 0..160 {
            let bytes = class_bytes(class);
            assert!(bytes >= last);
            last = bytes;
        }
        for bytes in (1..5000).chain([65536, 65537, 1 << 20, (1 << 20) + 1, 3 << 30, 1 << 40]) {
            let class = class_of(bytes);
            assert!(class_bytes(class) >= bytes, "{bytes}");
            assert!(class < CLASSES);
            assert!(bytes < 512 || class_bytes(class) * 4 <= bytes * 5 + 256, "{bytes} in {}", class_bytes(class));
        }
        for log in 6..40 {
            assert_eq!(class_bytes(class_of((1 << log) + HEADER)), (1 << log) + HEADER);
        }
    }
}
