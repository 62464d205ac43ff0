-- The sessions of `rapport dev`, which signs people in itself. Applied after the migrations. No role but the owner's
-- reaches this schema.

create schema if not exists rapport_dev;

create table if not exists rapport_dev.sessions (
  id uuid not null,
  user_id uuid not null,
  -- the secret that the next refresh must present, and the one before it
  secret text not null,
  previous_secret text,
  -- when the first of the two became valid
  rotated_at timestamptz not null default now(),
  -- of the access tokens, in seconds
  token_lifetime_s int not null,
  constraint sessions_pkey primary key (id),
  constraint sessions_user_id_fkey foreign key (user_id) references auth.users (id) on delete cascade
);

create index if not exists sessions_user_idx on rapport_dev.sessions (user_id);
