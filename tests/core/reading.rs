//! Reads by index against index-by-index references, over random shapes, layouts and element types.

use crate::kernels::dtypes;
use crate::kernels::sample;
use crate::support::{Noise, elements, indices};
use proptest::prelude::*;
use treadle::ops::{self, Index};
use treadle::{Tensor, array::DType};

/// Sizes before, along and behind an axis: many short parts, which are cut in the middle where work is, and few long ones.
fn around() -> impl Strategy<Value = [usize; 3]> {
    prop_oneof![
        3 => (1usize..7, 1usize..7, 1usize..20),
        1 => (1500usize..3000, 1usize..4, 1usize..4),
        1 => (1usize..3, 1usize..9, 30usize..50),
    ]
    .prop_map(|(before, along, behind)| [before, along, behind])
}

/// `count` places among `n`, some of them counted from the end.
fn places(count: usize, n: usize, noise: &mut Noise) -> Vec<i64> {
    (0..count).map(|_| noise.below(2 * n) as i64 - n as i64).collect()
}

fn held(place: i64, n: usize) -> usize {
    place.rem_euclid(n as i64) as usize
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..Default::default() })]

    #[test]
    fn takes_along_any_axis(shape in around(), count in prop_oneof![3 => 0usize..6, 1 => 30usize..50], dtype in dtypes(), seed in 0u64..1 << 40) {
        let (x, mut noise) = (sample(&shape, dtype, seed), Noise::new(seed));
        let (all, axes) = (elements(x.array()), shape.len());
        let at = |i: &[usize]| all[(i[0] * shape[1] + i[1]) * shape[2] + i[2]];
        for axis in 0..axes {
            let index = places(count, shape[axis], &mut noise);
            let y = ops::take(&x, &Tensor::from_slice(&[count], &index).unwrap(), axis as isize).unwrap();
            let mut taken = shape.to_vec();
            taken[axis] = count;
            let want: Vec<f64> = indices(&taken).into_iter().map(|mut i| { i[axis] = held(index[i[axis]], shape[axis]); at(&i) }).collect();
            prop_assert_eq!(&y.shape()[..], &taken[..]);
            prop_assert_eq!(elements(y.array()), want, "take along {}", axis);
        }
    }

    #[test]
    fn gathers_along_any_axis(shape in around(), count in 1usize..4, dtype in dtypes(), seed in 0u64..1 << 40) {
        let (x, mut noise) = (sample(&shape, dtype, seed), Noise::new(seed));
        let all = elements(x.array());
        for axis in 0..shape.len() {
            let mut read = shape.to_vec();
            read[axis] = count;
            let index = places(read.iter().product(), shape[axis], &mut noise);
            let y = ops::gather(&x, &Tensor::from_slice(&read, &index).unwrap(), axis as isize).unwrap();
            let want: Vec<f64> = indices(&read).into_iter().zip(&index).map(|(mut i, &place)| {
                i[axis] = held(place, shape[axis]);
                all[(i[0] * shape[1] + i[1]) * shape[2] + i[2]]
            }).collect();
            prop_assert_eq!(elements(y.array()), want, "gather along {}", axis);
        }
    }

    #[test]
    fn arrays_beside_each_other_read_what_they_name(shape in around(), count in 0usize..9, dtype in dtypes(), seed in 0u64..1 << 40) {
        let (x, mut noise) = (sample(&shape, dtype, seed), Noise::new(seed));
        let all = elements(x.array());
        let (i, j) = (places(count, shape[1], &mut noise), places(count, shape[2], &mut noise));
        let index = |at: &[i64]| Index::Array(Tensor::from_slice(&[count], at).unwrap());
        let y = ops::get(&x, &[Index::Slice { start: None, stop: None, step: 1 }, index(&i), index(&j)]).unwrap();
        let at = |before: usize, p: usize| all[(before * shape[1] + held(i[p], shape[1])) * shape[2] + held(j[p], shape[2])];
        let want: Vec<f64> = (0..shape[0]).flat_map(|before| (0..count).map(move |p| (before, p))).map(|(before, p)| at(before, p)).collect();
        prop_assert_eq!(elements(y.array()), want);
        prop_assert_eq!(y.dtype() == DType::Bool, dtype == DType::Bool);
    }
}
