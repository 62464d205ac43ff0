//! Fuzzes [`rapport::auth::fuzz::key_set`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rapport_fuzz::within_memory(data, rapport::auth::fuzz::key_set);
});
