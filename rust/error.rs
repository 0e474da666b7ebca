//! Errors as users see them: `op: expected …, got …`, lower case, with both facts.

use std::sync::Arc;

/// What went wrong. The kind decides the Python exception, the message carries the facts.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A shape or value that does not fit: `ValueError`.
    #[error("{0}")]
    Value(String),
    /// An element type that does not fit: `TypeError`.
    #[error("{0}")]
    Type(String),
    /// An index or axis out of range: `IndexError`.
    #[error("{0}")]
    Index(String),
    /// A freed graph, or a call out of order: `RuntimeError`.
    #[error("{0}")]
    Graph(String),
    /// An infinity or NaN where they are looked for: `FloatingPointError`.
    #[error("{0}")]
    NonFinite(String),
    /// More memory than there is: `MemoryError`.
    #[error("{0}")]
    Memory(String),
    /// Work that was told to stop: `KeyboardInterrupt`, or what the handler of the signal raised.
    #[error("interrupted")]
    Interrupted,
    /// What a function given by the caller failed with: passed on as it is.
    #[error("{0}")]
    Foreign(Foreign),
}

/// Somebody else's error, on its way back to them.
#[derive(Debug, Clone)]
pub struct Foreign(pub Arc<dyn std::error::Error + Send + Sync>);

impl PartialEq for Foreign {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Returns early with an [`Error`] of the named kind.
#[macro_export]
macro_rules! bail {
    ($kind:ident, $($fmt:tt)+) => {
        return Err($crate::Error::$kind(format!($($fmt)+)))
    };
}
