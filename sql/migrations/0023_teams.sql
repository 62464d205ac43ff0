-- The names of the application's teams, for people to read.

-- Empty until chat.install_host_mapping() rewrites it; its columns are what the rest of the schema relies on.
create view chat.teams as
select
  null::text as team_id,
  null::text as name
where false;

comment on view chat.teams is
  'One row per team whose name the host application keeps. Written by chat.install_host_mapping().';
