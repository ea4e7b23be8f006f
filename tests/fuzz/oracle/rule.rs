/// The fault, as text.
pub type Checked<T = ()> = Result<T, String>;

/// Returns from the function with the message, unless the rule holds.
macro_rules! rule {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}
