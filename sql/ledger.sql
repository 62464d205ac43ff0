-- The ledger: what has been applied to this database. Runs first, and only if one of its two tables
-- is missing.

create schema if not exists chat;

comment on schema chat is
  'Rapport: everything in the chat that clients do not address by name. PostgREST must not expose this schema.';

create table if not exists chat.schema_migrations (
  version int not null,
  name text not null,
  -- Of the applied file. An edited migration is refused and not run again.
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp(),
  constraint schema_migrations_pkey primary key (version),
  constraint schema_migrations_version_is_positive check (version > 0)
);

comment on table chat.schema_migrations is 'The applied files of sql/migrations: each once, in order, without gaps.';

create table if not exists chat.schema_definitions (
  path text not null,
  -- Of the applied file. A file is run again, as a whole, if its checksum differs.
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp(),
  constraint schema_definitions_pkey primary key (path)
);

comment on table chat.schema_definitions is 'The applied files of sql/definitions, each with the checksum of the text in force.';
