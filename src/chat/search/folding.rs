//! Folds text for comparison, into the same letters as `chat.folded_text` in the database.
//!
//! The database finds messages with its function; this module finds the positions of the hits in
//! the messages. Both contain the same tables, which a test compares.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;

/// Letters that Unicode normalization does not decompose, common in many languages.
const COMMON_LETTERS: &str = "ςđłøħıð";
/// The replacements of [`COMMON_LETTERS`], in the same order.
const COMMON_BASES: &str = "σdlohid";

/// Further letters that normalization does not decompose, which are rare.
const RARE_LETTERS: &str = concat!(
    "ĸŋŧƀɓƃƈɖɗƌɛƒɠɩɨƙƚɲƞƥƫƭʈʋƴƶǥȡȥȴȵȶȷⱥȼⱦȿɀʉɇɉɍɏɕɟɡɢɦɧɪɫɬɭɱɳɴɼɽɾʀ",
    "ʂʏʐʑʙʛʜʝʟʠᴀᴃᴄᴅᴆᴇᴊᴋᴌᴍᴏᴘᴛᴜᴠᴡᴢᵬᵭᵮᵯᵰᵱᵲᵳᵴᵵᵶᵻᵽᵾᶀᶁᶂᶃᶄᶅᶆᶇᶈᶉᶊᶌᶍᶎᶏᶑᶒᶓᶖ",
    "ᶙẜẝỽỿⱡⱨⱪⱬⱱⱳⱴⱸⱺꜰꜱꝁꝃꝅꝇꝉꝋꝍꝑꝓꝕꝗꝙꝟꝱꝲꝳꝴꝵꝶꝷꝺꝼꞇꞑꞓꞡꞣꞥꞧꞩ",
);
/// The replacements of [`RARE_LETTERS`], in the same order.
const RARE_BASES: &str = concat!(
    "qntbbbcdddefgiiklnnptttvyzgdzlntjactszuejrycjgghhilllmnnrrrr",
    "syzzbghjlqabcddejklmoptuvwzbdfmnprrstzipubdfgklmnprsvxzadeei",
    "ussvylhkzvwveofskkklloopppqqvdlmnrrtdftncgknrs",
);

/// Common letters that are replaced by several, each followed by its replacement.
const COMMON_GROUPS: &str = "ßss æae œoe";
/// Rare letters and symbols that are replaced by several letters, each followed by its
/// replacement. A symbol becomes a separate word; `_` separates words.
const RARE_GROUPS: &str = concat!(
    "þth ƕhv ƣoi ȸdb ȹqp ɶoe ʣdz ʥdz ʦts ʪls ʫlz ᴁae ᵫue ᵺth ỻll ꜳaa ꜵao ꜷau ꜹav ꜻav ꜽay ꝏoo ꝡvy ꝥth ꝧth ",
    "©_c_ ®_r_ ₠_ce_ ₢_cr_ ₣_fr_ ₤_l_ ₧_pts_ ₹_rs_ ₺_tl_ ℗_p_ ℘_p_ ℞_rx_",
);

/// Returns the letters that represent a grapheme cluster in comparisons.
pub(super) fn letters(cluster: &str) -> Vec<char> {
    cluster
        .chars()
        .flat_map(normalizable)
        .nfkd()
        .flat_map(char::to_lowercase)
        .filter(|c| !is_ignored(*c))
        .nfc()
        .flat_map(base)
        .collect()
}

/// Replaces characters whose normalization would differ from the database's.
fn normalizable(c: char) -> impl Iterator<Item = char> {
    // "1½" is 1 and 1/2, not 11/2.
    let is_fraction = matches!(c, '\u{bc}'..='\u{be}' | '\u{2150}'..='\u{215f}' | '\u{2189}');
    let c = match c {
        'Ŀ' => 'L',
        'ŀ' => 'l',
        'ẚ' => 'a',
        _ => c,
    };
    is_fraction.then_some(' ').into_iter().chain([c])
}

/// Returns the letters that users type for a letter that is missing from their keyboard.
fn base(c: char) -> impl Iterator<Item = char> {
    let base = if c.is_ascii() { None } else { BASES.get(&c) };
    let same = base.is_none().then_some(c);
    same.into_iter()
        .chain(base.copied().unwrap_or_default().chars())
}

/// The tables above as a map. A linear search for each letter of a long text would be slow.
static BASES: LazyLock<HashMap<char, &'static str>> = LazyLock::new(|| {
    let letters = [(COMMON_LETTERS, COMMON_BASES), (RARE_LETTERS, RARE_BASES)];
    let letters = letters.into_iter().flat_map(|(letters, bases)| {
        // The split begins and ends with an empty part.
        letters.chars().zip(bases.split("").skip(1))
    });
    let groups = [COMMON_GROUPS, RARE_GROUPS]
        .into_iter()
        .flat_map(|groups| groups.split(' '))
        .filter_map(|group| {
            let letter = group.chars().next()?;
            Some((letter, &group[letter.len_utf8()..]))
        });
    letters.chain(groups).collect()
});

/// Returns whether users do not type the character in searches, as in `chat.folded_text`.
pub(super) fn is_ignored(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{5bf}'
        | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}'
        | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e8}'
        | '\u{6ea}'..='\u{6ed}' | '\u{180b}'..='\u{180e}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}' | '\u{feff}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0100}'..='\u{e01ef}')
}

/// Returns whether the character is Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han or Hangul, as in
/// `chat.folded_text`.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Returns whether the character is an emoji, as in `chat.folded_text`.
pub(super) fn is_emoji(c: char) -> bool {
    matches!(c,
        '\u{2600}'..='\u{27bf}' | '\u{2b05}'..='\u{2b07}' | '\u{2b1b}' | '\u{2b1c}' | '\u{2b50}'
        | '\u{2b55}' | '\u{1f000}'..='\u{1faff}')
}

/// Returns whether the character separates words, as in `chat.folded_text`.
pub(super) fn is_separator(c: char) -> bool {
    if is_emoji(c) {
        return false;
    }
    matches!(c,
        '\0'..='/' | ':'..='@' | '['..='`' | '{'..='\u{a9}' | '\u{ab}'..='\u{b4}'
        | '\u{b6}'..='\u{b9}' | '\u{bb}'..='\u{bf}' | '\u{d7}' | '\u{f7}'
        | '\u{2b9}'..='\u{2bd}' | '\u{2c2}'..='\u{2c4}' | '\u{2c6}' | '\u{2c8}' | '\u{2cb}' | '\u{2d0}'
        | '\u{2d6}' | '\u{2d7}' | '\u{37e}' | '\u{387}'
        | '\u{55a}'..='\u{55f}' | '\u{589}' | '\u{58a}' | '\u{5be}' | '\u{5c0}' | '\u{5c3}' | '\u{5c6}'
        | '\u{5f3}' | '\u{5f4}' | '\u{600}'..='\u{60f}' | '\u{61b}'..='\u{61f}'
        | '\u{66a}'..='\u{66d}' | '\u{6d4}' | '\u{964}' | '\u{965}' | '\u{970}'
        | '\u{2000}'..='\u{206f}' | '\u{20a0}'..='\u{20cf}' | '\u{2190}'..='\u{25ff}'
        | '\u{2985}' | '\u{2986}' | '\u{2b00}'..='\u{2bff}' | '\u{2e00}'..='\u{2e7f}' | '\u{3000}'..='\u{3004}'
        | '\u{3008}'..='\u{3030}' | '\u{303d}' | '\u{30fb}' | '\u{e000}'..='\u{f8ff}'
        | '\u{fd3e}' | '\u{fd3f}' | '\u{fff0}'..='\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &str = include_str!("../../../sql/migrations/0027_search_in_linear_time.sql");

    fn folded(text: &str) -> String {
        letters(text).into_iter().collect()
    }

    #[test]
    fn the_tables_match_those_of_the_database() {
        // The database's definition splits its literals into several lines.
        let database = DATABASE.replace("'\n    '", "");
        for table in [
            RARE_LETTERS,
            RARE_BASES,
            RARE_GROUPS,
            COMMON_LETTERS,
            COMMON_BASES,
        ] {
            assert!(database.contains(&format!("'{table}'")), "{table}");
        }
        for group in COMMON_GROUPS.split(' ') {
            let letter = group.chars().next().expect("a letter");
            let replaced = format!("'{letter}', '{}')", &group[letter.len_utf8()..]);
            assert!(database.contains(&replaced), "{group}");
        }
    }

    #[test]
    fn every_letter_has_a_base() {
        for (letters, bases) in [(COMMON_LETTERS, COMMON_BASES), (RARE_LETTERS, RARE_BASES)] {
            assert_eq!(letters.chars().count(), bases.chars().count());
        }
        for group in RARE_GROUPS.split(' ') {
            let mut letters = group.chars();
            assert!(!letters.next().expect("a letter").is_ascii(), "{group}");
            assert!(
                letters.all(|c| c.is_ascii_lowercase() || c == '_'),
                "{group}"
            );
        }
    }

    #[test]
    fn letters_are_folded_to_what_users_type() {
        for (text, expected) in [
            ("Łódź", "lodz"),
            ("Œuvre", "oeuvre"),
            ("STRAẞE straße", "strasse strasse"),
            ("Ærøskøbing", "aeroskobing"),
            ("Þingvellir", "thingvellir"),
            ("Đà Nẵng", "da nang"),
            ("Iı İi", "ii ii"),
            ("coŀlecció", "colleccio"),
            ("Ǽ ǿ", "ae o"),
            ("ŉ", "\u{2bc}n"),
            ("1½", "1 1\u{2044}2"),
            ("₹5", "_rs_5"),
            ("Ꜳ ꜳ", "aa aa"),
            ("Ёлка", "елка"),
            ("かがガ", "かがガ"),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }
}
