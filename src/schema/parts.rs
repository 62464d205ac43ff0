//! The schema as SQL files of limited size, for SQL editors and for `supabase/migrations`.
//!
//! The files only store their content in the table `chat.install_parts`, and the last one installs
//! everything in a single statement. So nothing is ever installed in part, the tables never exist
//! without their policies, and the files can be run by a program that commits after each of them.
//!
//! The last file compares each stored text with its checksum before it runs the text, and the
//! ledger decides whether a text must run. So the files can be run in any state of the database,
//! also after `rapport migrate`, and repeatedly.

use std::collections::BTreeMap;

use super::error::SchemaError;
use super::files::{LEDGER, definitions, migrations};
use super::install::InstallOptions;
use super::script::check;
use super::statements::{CHECK_OWNERS, PREPARE, SET_STORAGE_URL, quoted};

/// Maximum size of a file. The Supabase CLI refuses statements of 256 KiB, and SQL editors in
/// browsers become slow far beyond this size.
const MAX_PART_BYTES: usize = 200 * 1024;

/// Starts the line of a generated file that names a file of `sql/` and its checksum.
const CONTAINS: &str = "-- rapport-file: ";

/// What the last file does if the database has a newer schema than the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfNewer {
    /// Fails.
    Refuse,
    /// Changes nothing. A file in `supabase/migrations` that failed would block all later ones.
    Skip,
}

/// The files of `sql/` that generated files contain: the newest checksum by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contained(BTreeMap<String, String>);

impl Contained {
    /// Adds the content of a generated file. Files must be added in the order in which they are
    /// run.
    pub fn add(&mut self, text: &str) {
        let lines = text.lines().filter_map(|line| line.strip_prefix(CONTAINS));
        for (path, checksum) in lines.filter_map(|line| line.split_once(' ')) {
            self.0.insert(path.to_owned(), checksum.to_owned());
        }
    }
}

/// A file of `sql/`.
struct Piece {
    path: String,
    /// The version, if the file is a migration.
    version: Option<i32>,
    /// The name in the ledger.
    name: String,
    checksum: String,
    text: &'static str,
}

/// Returns the texts of the generated files, in the order in which they must be run. Files of
/// `sql/` that earlier generated files contain are omitted. If all are contained, the result is
/// empty.
///
/// # Errors
/// Fails if the earlier files contain a migration that this program does not have, or another text
/// of one that it has.
pub fn parts(
    options: &InstallOptions,
    earlier: &Contained,
    if_newer: IfNewer,
) -> Result<Vec<String>, SchemaError> {
    let pieces = pieces()?;
    refuse_other_migrations(&pieces, earlier)?;
    let new = pieces
        .iter()
        .filter(|piece| earlier.0.get(&piece.path) != Some(&piece.checksum));
    let mut bodies: Vec<String> = Vec::new();
    for piece in new {
        let stored = store(piece);
        match bodies.last_mut() {
            Some(body) if HEAD_BYTES + body.len() + stored.len() <= MAX_PART_BYTES => {
                body.push_str(&stored);
            }
            _ => bodies.push(stored),
        }
    }
    let Some(last) = bodies.last_mut() else {
        return Ok(Vec::new());
    };
    let begin = begin();
    let end = install_all(&pieces, options, if_newer)?;
    if HEAD_BYTES + last.len() + end.len() <= MAX_PART_BYTES {
        last.push_str(&end);
    } else {
        bodies.push(end);
    }
    let count = bodies.len();
    let texts = bodies.iter().zip(1..).map(|(body, number)| {
        let version = env!("CARGO_PKG_VERSION");
        let what = if number == count {
            "This file installs everything."
        } else {
            "This file stores its content; the last file installs everything."
        };
        format!(
            "-- The database schema of Rapport {version}, file {number} of {count}. Run all files in order.\n\
             -- {what}\n{begin}{body}"
        )
    });
    Ok(texts.collect())
}

fn pieces() -> Result<Vec<Piece>, SchemaError> {
    let migrations = migrations()?.into_iter().map(|file| Piece {
        path: file.path(),
        version: Some(file.version),
        name: file.name,
        checksum: file.checksum,
        text: file.text,
    });
    let definitions = definitions().into_iter().map(|file| Piece {
        path: file.path(),
        version: None,
        name: file.name,
        checksum: file.checksum,
        text: file.text,
    });
    Ok(migrations.chain(definitions).collect())
}

/// Refuses earlier files of a newer program, and those with another text of a migration.
fn refuse_other_migrations(pieces: &[Piece], earlier: &Contained) -> Result<(), SchemaError> {
    let known = pieces.iter().filter_map(|piece| piece.version).max();
    let known = known.unwrap_or(0);
    for (path, checksum) in &earlier.0 {
        let Some(number) = path
            .strip_prefix("migrations/")
            .and_then(|file| file.get(..4))
        else {
            continue;
        };
        match pieces.iter().find(|piece| piece.path == *path) {
            Some(piece) if piece.checksum == *checksum => {}
            Some(piece) => {
                return Err(SchemaError::Edited {
                    version: piece.version.unwrap_or(0),
                    name: piece.name.clone(),
                });
            }
            None => {
                let found = number.parse().unwrap_or(i32::MAX);
                return Err(SchemaError::Newer { found, known });
            }
        }
    }
    Ok(())
}

/// Room for what precedes the stored texts in each file, in bytes. A test checks it.
const HEAD_BYTES: usize = 4 * 1024;

/// Returns the statements that start every file. They create the table that holds the content of
/// the files until the last one has run.
///
/// The owner of the schema is checked after the schema is created, because another role could have
/// created it earlier. Its table of this name could have a trigger that would run with the rights
/// of the installer.
fn begin() -> String {
    format!(
        "
create schema if not exists chat;
{CHECK_OWNERS};
-- One statement, so that no other session sees the table before the rights are revoked. Default
-- privileges may grant users rights on new tables, and a trigger of a user would run as the
-- installer.
do $$
declare
  grantee text;
begin
  create table if not exists chat.install_parts (path text primary key, content text not null);
  for grantee in
    select distinct case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end
    from pg_class c, aclexplode(c.relacl) acl
    where c.oid = 'chat.install_parts'::regclass and acl.grantee <> c.relowner
  loop
    execute format('revoke all on chat.install_parts from %s', grantee);
  end loop;
end
$$;
"
    )
}

/// Returns the statement that stores the text of a file of `sql/`.
fn store(piece: &Piece) -> String {
    format!(
        "\n{CONTAINS}{path} {checksum}\n\
         insert into chat.install_parts (path, content) values ({name}, {content})\n\
         on conflict (path) do update set content = excluded.content;\n",
        path = piece.path,
        checksum = piece.checksum,
        name = quoted(&piece.path),
        content = dollar_quoted(piece.text),
    )
}

/// Returns the statement that installs all stored files.
fn install_all(
    pieces: &[Piece],
    options: &InstallOptions,
    if_newer: IfNewer,
) -> Result<String, SchemaError> {
    let files: Vec<String> = pieces
        .iter()
        .zip(1..)
        .map(|(piece, position)| {
            format!(
                "({position}, {}, {}, {}, {})",
                quoted(&piece.path),
                piece
                    .version
                    .map_or("null::int".to_owned(), |version| version.to_string()),
                quoted(&piece.name),
                quoted(&piece.checksum),
            )
        })
        .collect();
    let run = |statement: &str| format!("  execute {};\n", dollar_quoted(statement));
    let newest = pieces.iter().filter_map(|piece| piece.version).max();
    let skip = match if_newer {
        IfNewer::Refuse => String::new(),
        IfNewer::Skip => SKIP.replace("{newest}", &newest.unwrap_or(0).to_string()),
    };
    let storage = options.storage_url.as_ref().map(|url| {
        let statement = SET_STORAGE_URL.replace("$1", &quoted(url));
        format!("  {statement};\n")
    });
    let body = INSTALL
        .replace(
            "{prepare}",
            &PREPARE.iter().map(|s| run(s)).collect::<String>(),
        )
        .replace("{ledger}", &run(LEDGER))
        .replace("{skip}", &skip)
        .replace("{check}", &run(&check(&migrations()?)))
        .replace("{files}", &files.join(",\n      "))
        .replace("{preset}", &quoted(&options.host_preset))
        .replace("{storage}", &storage.unwrap_or_default())
        .replace("{owners}", &run(CHECK_OWNERS));
    let statement = format!("\ndo {};\n", dollar_quoted(&body));
    Ok(match if_newer {
        // A time limit counts from the start of a statement, so the statement cannot lift its own.
        IfNewer::Refuse => {
            format!("\nbegin;\nset local statement_timeout = 0;\n{statement}commit;\n")
        }
        IfNewer::Skip => statement,
    })
}

const SKIP: &str = "  if (select max(version) from chat.schema_migrations) > {newest} then
    raise warning 'The database has a newer schema than this file. Nothing was changed.';
    drop table chat.install_parts;
    return;
  end if;
";

const INSTALL: &str = "
declare
  file record;
  content text;
begin
{prepare}
  if (
    select count(*) < 2
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'chat' and c.relname in ('schema_migrations', 'schema_definitions')
  ) then
  {ledger}
  end if;
{skip}
{check}
  for file in
    select *
    from (values
      {files}
    ) as f (position, path, version, name, checksum)
    order by f.position
  loop
    continue when exists (select from chat.schema_migrations m where m.version = file.version);
    continue when file.version is null and exists (
      select from chat.schema_definitions d where d.path = file.name and d.checksum = file.checksum
    );
    content := (select p.content from chat.install_parts p where p.path = file.path);
    if content is null or encode(sha256(convert_to(content, 'UTF8')), 'hex') <> file.checksum then
      raise exception 'The text of % is missing or was changed on the way.', file.path
        using hint = 'Run all files in order, beginning with the first. Line ends must not be converted. Or run \"rapport migrate\".';
    end if;
    if file.version is not null then
      insert into chat.schema_migrations (version, name, checksum) values (file.version, file.name, file.checksum);
    end if;
    execute content;
    if file.version is null then
      insert into chat.schema_definitions (path, checksum) values (file.name, file.checksum)
      on conflict (path) do update set checksum = excluded.checksum, applied_at = clock_timestamp();
    end if;
  end loop;
  perform chat.grant_roles_to_installer();
  perform chat.grant_shared_columns();
  perform chat.install_host_mapping({preset});
{storage}{owners}
  drop table chat.install_parts;
end
";

/// Returns `text` as a dollar-quoted literal (PostgreSQL manual, section 4.1.2.4) with a tag that
/// does not occur in it.
fn dollar_quoted(text: &str) -> String {
    let mut tag = "rapport".to_owned();
    while text.contains(&format!("${tag}")) {
        tag.push('_');
    }
    format!("${tag}${text}${tag}$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(earlier: &Contained) -> Result<Vec<String>, SchemaError> {
        parts(&InstallOptions::default(), earlier, IfNewer::Skip)
    }

    #[test]
    fn every_file_is_small_and_contains_all_of_sql_once() {
        let texts = all(&Contained::default()).unwrap();
        assert!(texts.len() > 1, "{}", texts.len());
        let mut contained = Contained::default();
        let mut lines = 0;
        for text in &texts {
            assert!(text.len() <= MAX_PART_BYTES, "{}", text.len());
            contained.add(text);
            lines += text.matches(CONTAINS).count();
        }
        let pieces = pieces().unwrap();
        assert_eq!((contained.0.len(), lines), (pieces.len(), pieces.len()));
        assert_eq!(all(&contained).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn later_files_contain_only_what_changed() {
        let mut contained = Contained::default();
        for text in all(&Contained::default()).unwrap() {
            contained.add(&text);
        }
        let path = "definitions/chat/10_refusals.sql";
        contained.add(&format!("{CONTAINS}{path} older"));
        contained
            .0
            .remove("migrations/0027_search_in_linear_time.sql");
        let texts = all(&contained).unwrap();
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].matches(CONTAINS).count(), 2);
        assert!(texts[0].contains(&format!("{CONTAINS}{path} ")));
    }

    #[test]
    fn earlier_files_of_a_newer_program_are_refused() {
        for (line, expected) in [
            (
                "migrations/0001_foundation.sql other",
                "Migration 1 (foundation) has changed",
            ),
            (
                "migrations/9000_later.sql x",
                "The schema is at version 9000",
            ),
        ] {
            let mut contained = Contained::default();
            contained.add(&format!("{CONTAINS}{line}"));
            let error = all(&contained).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_tag_never_occurs_in_the_text() {
        assert_eq!(dollar_quoted("a"), "$rapport$a$rapport$");
        let nested = dollar_quoted(&dollar_quoted("a"));
        assert_eq!(nested, "$rapport_$$rapport$a$rapport$$rapport_$");
    }
}
