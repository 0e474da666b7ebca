//! Errors as users see them: `op: expected …, got …`, lower case, with both facts.

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
    /// More memory than there is: `MemoryError`.
    #[error("{0}")]
    Memory(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Returns early with an [`Error`] of the named kind.
#[macro_export]
macro_rules! bail {
    ($kind:ident, $($fmt:tt)+) => {
        return Err($crate::Error::$kind(format!($($fmt)+)))
    };
}
