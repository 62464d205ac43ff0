//! Fuzzes [`rapport::auth::fuzz::token`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rapport_fuzz::within_memory(data, rapport::auth::fuzz::token);
});
