//! The core's tests, in one binary. None needs Python.

mod architecture;
mod columns;
mod columns_reference;
mod determinism;
mod elementwise;
mod gradient_table;
mod gradients;
mod kernels;
mod math;
mod parts;
mod products;
mod random;
mod reading;
mod reductions;
mod rows;
mod rows_cases;
mod support;
mod tape;
mod threads;
mod views;
