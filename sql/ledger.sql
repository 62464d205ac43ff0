-- The ledger: what has been applied to this database. Run before anything else, and only when one of the two tables is missing.

create schema if not exists chat;

comment on schema chat is
  'Rapport: everything of the chat that clients never address by name. Keep it out of the schemas PostgREST exposes.';

create table if not exists chat.schema_migrations (
  version int not null,
  name text not null,
  -- of the file as it was applied: an edited migration is refused, not run again
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp(),
  constraint schema_migrations_pkey primary key (version),
  constraint schema_migrations_version_is_positive check (version > 0)
);

comment on table chat.schema_migrations is 'Migrations of sql/migrations, each applied once, in order, without gaps.';

create table if not exists chat.schema_definitions (
  path text not null,
  -- of the file as it was applied: a file is run again, as a whole, when this differs
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp(),
  constraint schema_definitions_pkey primary key (path)
);

comment on table chat.schema_definitions is 'Files of sql/definitions, each with the text that is in force.';
