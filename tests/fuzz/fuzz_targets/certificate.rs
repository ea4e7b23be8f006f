//! Any input, judged by `oracle/certificate.rs`.
#![no_main]

#[path = "../oracle/mod.rs"]
#[allow(dead_code, reason = "each target uses a part")]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(wrong) = oracle::certificate::check(data) {
        panic!("{wrong}");
    }
});
