//! Excerpts of a text around search hits, with the positions of the hits.
//!
//! Fragments are plain text, never markup: clients must escape them. [`folding`](super::folding)
//! decides which words are equal.

use serde::Serialize;
use unicode_normalization::char::is_combining_mark;

use super::folding::{is_emoji, is_ignored, is_separator, is_unspaced, letters};

/// Maximum length of a text that is shown whole, in characters.
const WHOLE_CHARS: usize = 160;

/// Characters shown on either side of a hit in a longer text.
const CONTEXT_CHARS: usize = 50;

/// Maximum number of fragments per text. A list of hits has no room for more.
const MAX_FRAGMENTS: usize = 3;

/// Number of words that are searched before the first check of whether the fragments are complete.
/// In a text full of hits, three fragments contain about this many words.
const WORDS_AT_ONCE: usize = 128;

/// An excerpt of a text.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Fragment {
    /// The field of the message: `content` or `file_name`.
    pub(super) field: &'static str,
    /// The excerpt.
    pub(super) text: String,
    /// The positions of the hits: start and end in UTF-16 code units, half-open, as in JavaScript.
    pub(super) ranges: Vec<[usize; 2]>,
}

/// The search terms.
pub(super) struct Terms {
    /// The words of each term, which must appear in this order.
    terms: Vec<Vec<Word>>,
}

/// How words of a script are separated and matched.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A word between separators. A term of one word matches its beginning.
    Spaced,
    /// A run of letters of a script that is written without spaces. A term of one word matches any
    /// part of it.
    Unspaced,
    /// A single emoji.
    Emoji,
}

/// A folded word, with the position of each letter in the text.
#[derive(Debug)]
struct Word {
    kind: Kind,
    letters: Vec<char>,
    /// Start and end, in bytes, of the text that each letter comes from. A letter and its accents,
    /// or an emoji that consists of several code points, are never split.
    places: Vec<(usize, usize)>,
}

impl Terms {
    /// Creates terms from single words and phrases as they were typed.
    pub(super) fn new(words: &[String], phrases: &[String]) -> Self {
        let single = words
            .iter()
            .flat_map(|word| split(word))
            .map(|word| vec![word]);
        let phrases = phrases.iter().map(|phrase| split(phrase));
        // Duplicates are removed, because every term is searched for at every word of a text.
        let mut terms: Vec<Vec<Word>> = Vec::new();
        for term in single.chain(phrases).filter(|term| !term.is_empty()) {
            if !terms.iter().any(|known| is_same_term(known, &term)) {
                terms.push(term);
            }
        }
        Self { terms }
    }

    /// Returns the excerpts of `text` that contain any of the terms.
    pub(super) fn fragments(&self, field: &'static str, text: &str) -> Vec<Fragment> {
        self.fragments_by(WORDS_AT_ONCE, field, text)
    }

    /// Searches a limited number of words at a time, until the fragments that can be shown are
    /// complete. Each round builds all excerpts again from the first hit. The number of words
    /// doubles each time, so that there are few rounds.
    fn fragments_by(
        &self,
        mut words_at_once: usize,
        field: &'static str,
        text: &str,
    ) -> Vec<Fragment> {
        let words = split(text);
        let starts: Vec<usize> = clusters(text).into_iter().map(|(start, _)| start).collect();
        let mut hits = Vec::new();
        let mut start: usize = 0;
        loop {
            let end = words.len().min(start.saturating_add(words_at_once));
            words_at_once = words_at_once.saturating_mul(2);
            for start in start..end {
                for term in &self.terms {
                    hits.extend(match_at(&words[start..], term));
                }
            }
            start = end;
            hits = merged(hits);
            let (fragments, shown) = excerpts(field, text, &starts, &hits);
            // The remaining hits begin at or after the next word.
            let Some(next) = words.get(start).and_then(|word| word.places.first()) else {
                return fragments;
            };
            if fragments.len() == MAX_FRAGMENTS && shown <= next.0 {
                return fragments;
            }
        }
    }
}

/// Returns the excerpts around hits, at most [`MAX_FRAGMENTS`], and the end of the last one in
/// bytes.
///
/// `starts` are the starts of the text's [`clusters`]. They are computed once by the caller,
/// because a long fragment of many hits needs them often.
fn excerpts(
    field: &'static str,
    text: &str,
    starts: &[usize],
    hits: &[(usize, usize)],
) -> (Vec<Fragment>, usize) {
    let mut fragments = Vec::new();
    let mut rest = hits;
    let mut shown = 0;
    let is_whole = text.chars().nth(WHOLE_CHARS).is_none();
    while let Some(&(begin, end)) = rest.first().filter(|_| fragments.len() < MAX_FRAGMENTS) {
        let (from, mut to) = if is_whole {
            (0, text.len())
        } else {
            (
                before(text, starts, begin).max(shown),
                after(text, starts, end),
            )
        };
        // A hit within the context of another is shown in the same fragment, with its own context.
        let mut count = 1;
        while let Some(&(begin, end)) = rest.get(count).filter(|(begin, _)| *begin < to) {
            if !is_whole && end > to {
                to = after(text, starts, end.max(begin));
            }
            count += 1;
        }
        // Counting continues from the previous hit, so that each character is counted once.
        let (mut counted, mut units) = (from, 0);
        let mut units_before = |end: usize| {
            units += text[counted..end].encode_utf16().count();
            counted = end;
            units
        };
        let ranges = rest[..count]
            .iter()
            .map(|(begin, end)| [units_before(*begin), units_before(*end)]);
        fragments.push(Fragment {
            field,
            text: text[from..to].to_owned(),
            ranges: ranges.collect(),
        });
        rest = &rest[count..];
        shown = to;
    }
    (fragments, shown)
}

/// Returns the positions of hits in bytes, ordered, with overlapping ones merged.
fn merged(mut hits: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    hits.sort_unstable();
    let mut merged: Vec<(usize, usize)> = Vec::with_capacity(hits.len());
    for (begin, end) in hits {
        match merged.last_mut() {
            Some(last) if begin < last.1 => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    merged
}

fn is_same_term(left: &[Word], right: &[Word]) -> bool {
    let words = |term: &[Word]| -> Vec<(Kind, Vec<char>)> {
        term.iter()
            .map(|word| (word.kind, word.letters.clone()))
            .collect()
    };
    words(left) == words(right)
}

/// Returns the positions of the words of a term that matches in the first of `words`. A term of one
/// word may match there several times.
fn match_at(words: &[Word], term: &[Word]) -> Vec<(usize, usize)> {
    let Some((first, others)) = term.split_first() else {
        return Vec::new();
    };
    let Some(word) = words.first().filter(|word| word.kind == first.kind) else {
        return Vec::new();
    };
    let length = first.letters.len();
    if others.is_empty() {
        return match first.kind {
            Kind::Unspaced => (0..=word.letters.len().saturating_sub(length))
                .filter(|start| word.letters[*start..].starts_with(&first.letters))
                .filter_map(|start| word.part(start, start + length))
                .collect(),
            _ if word.letters.starts_with(&first.letters) => {
                word.part(0, length).into_iter().collect()
            }
            _ => Vec::new(),
        };
    }
    let begins = match first.kind {
        Kind::Unspaced => word.letters.ends_with(&first.letters),
        _ => word.letters == first.letters,
    };
    if !begins || words.len() < term.len() {
        return Vec::new();
    }
    let mut places = vec![word.part(word.letters.len() - length, word.letters.len())];
    for (index, wanted) in others.iter().enumerate() {
        let word = &words[index + 1];
        let is_last = index + 1 == others.len();
        let matches = if is_last {
            word.letters.starts_with(&wanted.letters)
        } else {
            word.letters == wanted.letters
        };
        if word.kind != wanted.kind || !matches {
            return Vec::new();
        }
        places.push(word.part(0, wanted.letters.len()));
    }
    places.into_iter().flatten().collect()
}

impl Word {
    /// Returns the position of some of the word's letters.
    fn part(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let places = self.places.get(from..to)?;
        Some((places.first()?.0, places.last()?.1))
    }
}

/// Splits a text into words.
fn split(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut is_joined = false;
    for (begin, end) in clusters(text) {
        for letter in letters(&text[begin..end]) {
            let kind = if is_separator(letter) {
                is_joined = false;
                continue;
            } else if is_emoji(letter) {
                Kind::Emoji
            } else if is_unspaced(letter) {
                Kind::Unspaced
            } else {
                Kind::Spaced
            };
            match words.last_mut() {
                Some(word) if is_joined && word.kind == kind && kind != Kind::Emoji => {
                    word.letters.push(letter);
                    word.places.push((begin, end));
                }
                _ => words.push(Word {
                    kind,
                    letters: vec![letter],
                    places: vec![(begin, end)],
                }),
            }
            is_joined = true;
        }
    }
    words
}

/// Returns start and end, in bytes, of each user-perceived character. A letter includes its
/// combining marks, and joined emoji are one character.
fn clusters(text: &str) -> Vec<(usize, usize)> {
    const ZERO_WIDTH_JOINER: char = '\u{200d}';
    let mut clusters: Vec<(usize, usize)> = Vec::new();
    let mut before = None;
    for (begin, c) in text.char_indices() {
        let end = begin + c.len_utf8();
        // Vowels and final consonants of Hangul that are written as separate code points.
        let is_hangul_rest = matches!(c, '\u{1160}'..='\u{11ff}');
        let continues = is_combining_mark(c)
            || is_ignored(c)
            || is_hangul_rest
            || before == Some(ZERO_WIDTH_JOINER) && is_emoji(c);
        match clusters.last_mut() {
            Some(last) if continues => last.1 = end,
            _ => clusters.push((begin, end)),
        }
        before = Some(c);
    }
    clusters
}

/// Returns the start of the context before a hit: at a word boundary if possible.
fn before(text: &str, starts: &[usize], begin: usize) -> usize {
    let hit = starts.partition_point(|start| *start < begin);
    let Some(&far) = hit
        .checked_sub(CONTEXT_CHARS)
        .and_then(|far| starts.get(far))
    else {
        return 0;
    };
    text[far..begin]
        .char_indices()
        .find(|(_, c)| c.is_whitespace())
        .map_or(far, |(at, c)| far + at + c.len_utf8())
}

/// Returns the end of the context after a hit: at a word boundary if possible.
fn after(text: &str, starts: &[usize], end: usize) -> usize {
    let next = starts.partition_point(|start| *start < end);
    let Some(&far) = starts.get(next + CONTEXT_CHARS) else {
        return text.len();
    };
    text[end..far]
        .rfind(char::is_whitespace)
        .map_or(far, |space| end + space)
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;

    fn terms(words: &[&str], phrases: &[&str]) -> Terms {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        Terms::new(&owned(words), &owned(phrases))
    }

    /// Returns the text with its hits in brackets.
    fn marked(fragment: &Fragment) -> String {
        let units: Vec<u16> = fragment.text.encode_utf16().collect();
        let part = |from: usize, to: usize| {
            String::from_utf16(&units[from..to]).expect("whole characters")
        };
        let mut marked = String::new();
        let mut reached = 0;
        for [begin, end] in &fragment.ranges {
            marked += &format!("{}[{}]", part(reached, *begin), part(*begin, *end));
            reached = *end;
        }
        marked + &part(reached, units.len())
    }

    #[test]
    fn hits_are_marked_at_their_positions() {
        let cases: &[(&[&str], &[&str], &str, &str)] = &[
            (
                &["rep"],
                &[],
                "The Report, reporter; prepare",
                "The [Rep]ort, [rep]orter; prepare",
            ),
            (
                &["img"],
                &[],
                "<img onerror=\"x\">",
                "<[img] onerror=\"x\">",
            ),
            (&["a&b"], &[], "a b &amp;", "[a] [b] &[a]mp;"),
            (&["don't"], &[], "I don\u{2019}t", "I [don]\u{2019}[t]"),
            (&["cafe"], &[], "Cafe\u{301}s CAFÉ", "[Cafe\u{301}]s [CAFÉ]"),
            (&["café"], &[], "cafe", "[cafe]"),
            (&["елка"], &[], "Ёлка", "[Ёлка]"),
            (&["محمد"], &[], "قال مُحَمَّد", "قال [مُحَمَّد]"),
            (
                &["会議"],
                &[],
                "明日の会議は会議室で",
                "明日の[会議]は[会議]室で",
            ),
            (
                &["한"],
                &[],
                "\u{1112}\u{1161}\u{11ab}하",
                "[\u{1112}\u{1161}\u{11ab}]하",
            ),
            (&["東京tower"], &[], "東京 tower", "[東京] [tower]"),
            (&["🎉"], &[], "go🎉🎉 on", "go[🎉][🎉] on"),
            (&["x"], &[], "👍🏽x 👩\u{200d}👧x", "👍🏽[x] 👩\u{200d}👧[x]"),
            (&["👍"], &[], "👍🏽 👍", "[👍🏽] [👍]"),
            (&["👧"], &[], "👩\u{200d}👧!", "[👩\u{200d}👧]!"),
            (&["lodz"], &[], "do Łodzi, Łódź!", "do [Łodz]i, [Łódź]!"),
            (&["łódź"], &[], "lodz", "[lodz]"),
            (&["oeuvre"], &[], "l\u{2019}œuvre", "l\u{2019}[œuvre]"),
            (&["œ"], &[], "oeuvre", "[oe]uvre"),
            (&["o"], &[], "Œuvre", "[Œ]uvre"),
            (&["stras"], &[], "Straße", "[Straß]e"),
            (&["500"], &[], "₹500 1½", "₹[500] 1½"),
            (&["1"], &[], "1½", "[1][½]"),
            (&[], &["lodz w"], "Łódź w maju", "[Łódź] [w] maju"),
            (&["fi"], &[], "ﬁne", "[ﬁ]ne"),
            (&["f"], &[], "ﬁne", "[ﬁ]ne"),
            (
                &[],
                &["plan b"],
                "plan b, plan c, B plan",
                "[plan] [b], plan c, B plan",
            ),
            (
                &[],
                &["the qu"],
                "The quarterly the",
                "[The] [qu]arterly the",
            ),
            (&[], &["京 tower"], "東京 tower", "東[京] [tower]"),
            (&["re", "rep"], &[], "report", "[rep]ort"),
            (
                &["budget"],
                &[],
                "my_budget-2026.xlsx",
                "my_[budget]-2026.xlsx",
            ),
        ];
        for (words, phrases, text, expected) in cases {
            let fragments = terms(words, phrases).fragments("content", text);
            assert_eq!(fragments.len(), 1, "{text}");
            assert_eq!(&marked(&fragments[0]), expected, "{text}");
        }
        for (words, text) in [
            (&["x"][..], ""),
            (&["port"], "report"),
            (&[""], "a"),
            (&["!"], "!"),
            (&["京東"], "東京"),
        ] {
            assert_eq!(terms(words, &[]).fragments("content", text), [], "{text}");
        }
    }

    #[test]
    fn a_long_text_is_shown_around_its_hits() {
        let filler = "lorem ipsum ".repeat(30);
        let text =
            format!("{filler}needle one {filler}needle two needle {filler}needle {filler}needle");
        let fragments = terms(&["needle"], &[]).fragments("content", &text);
        let shown: Vec<_> = fragments.iter().map(marked).collect();
        let around = "ipsum lorem ipsum lorem ipsum lorem ipsum";
        assert_eq!(shown.len(), MAX_FRAGMENTS);
        assert!(shown[0].contains("[needle] one"), "{shown:?}");
        assert!(shown[1].contains("[needle] two [needle]"), "{shown:?}");
        for fragment in &shown {
            assert!(
                fragment.contains(around) && fragment.len() < 160,
                "{fragment}"
            );
            assert!(
                fragment.starts_with("lorem") || fragment.starts_with("ipsum"),
                "{fragment}"
            );
        }
        let unbroken = format!("{}会議{}", "東".repeat(500), "京".repeat(500));
        let fragments = terms(&["会議"], &[]).fragments("content", &unbroken);
        assert_eq!(fragments[0].ranges, [[50, 52]]);
        assert_eq!(fragments[0].text.chars().count(), 102);
    }

    #[test]
    fn one_long_fragment_takes_linear_time() {
        // Each hit is within the context of another, so everything is one fragment. With quadratic
        // time, this would take minutes.
        const COUNT: usize = 50_000;
        for word in ["abc.", "会議室"] {
            let fragments = terms(&[word], &[]).fragments("content", &word.repeat(COUNT));
            assert_eq!((fragments.len(), fragments[0].ranges.len()), (1, COUNT));
        }
    }

    #[test]
    fn a_repeated_term_is_searched_once() {
        let repeated = terms(&["a", "A", "á", "a"], &["a b", "a  B", "b a"]);
        assert_eq!(repeated.terms.len(), 3);
    }

    proptest! {
        #[test]
        fn searching_in_steps_gives_the_same_fragments(
            text in "((a|b|ab|c|½|東京|👍|x{30}) ?){0,200}",
            words in prop::collection::vec("a|b|1|東|👍", 0..3),
            phrase in "(a|b)( (a|b|c)){0,3}",
            words_at_once in 1usize..40,
        ) {
            let terms = Terms::new(&words, &[phrase]);
            let all = terms.fragments_by(usize::MAX, "content", &text);
            prop_assert_eq!(terms.fragments_by(words_at_once, "content", &text), all);
        }

        #[test]
        fn ranges_cover_whole_characters_that_match(
            text in "(a|b|é|e\u{301}|İ|ß|Ł|œ|½|₹|東|京|한|👩\u{200d}👧|👍🏽|ﬁ| |!|م|مَ|\u{200d}|\u{301}|x{60}|PC){0,40}",
            word in "(a|b|e|é|i|l|oe|ł|s|1|r|東|京|👧|👍|f|م|x|p){1,3}",
        ) {
            let terms = terms(&[&word], &[]);
            let wanted: Vec<Vec<char>> = split(&word).into_iter().map(|word| word.letters).collect();
            for fragment in terms.fragments("content", &text) {
                prop_assert!(text.contains(&fragment.text));
                let units: Vec<u16> = fragment.text.encode_utf16().collect();
                let mut reached = 0;
                prop_assert!(!fragment.ranges.is_empty());
                for [begin, end] in fragment.ranges {
                    prop_assert!(reached <= begin && begin < end && end <= units.len());
                    reached = end;
                    let covered = String::from_utf16(&units[begin..end]);
                    prop_assert!(covered.is_ok(), "a range splits a character");
                    let folded: Vec<char> = split(&covered.unwrap_or_default()).into_iter().flat_map(|word| word.letters).collect();
                    let has = wanted.iter().any(|wanted| folded.windows(wanted.len()).any(|part| part == wanted));
                    prop_assert!(has, "{folded:?} has none of {wanted:?}");
                }
            }
        }
    }
}
