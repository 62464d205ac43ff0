//! Fuzzes [`rapport::realtime::fuzz::joined`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rapport_fuzz::within_memory(data, rapport::realtime::fuzz::joined);
});
