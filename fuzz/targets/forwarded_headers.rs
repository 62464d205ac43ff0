//! Fuzzes [`rapport::upstream::fuzz::forwarded_headers`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rapport_fuzz::within_memory(data, rapport::upstream::fuzz::forwarded_headers);
});
