-- Whoever does not share their presence leaves no trace of being there, in system columns either: locking a row moves its
-- xmax, and a foreign key locks the row that it refers to. What is locked and referred to when somebody reports is their
-- row of presence_reports, which nobody reads.

-- chat.install_host_mapping() makes it refer to the table of people, so that erasing a person erases it
alter table chat.presence_reports drop constraint presence_reports_user_fkey;

-- one row for everybody who has a row of user_presence, and for everybody who hides
insert into chat.presence_reports (user_id)
select p.user_id from public.user_presence p
union
select f.user_id from public.user_notification_preferences f where not f.share_presence
on conflict on constraint presence_reports_pkey do nothing;

alter table chat.presence_report_sessions
  drop constraint presence_report_sessions_user_fkey,
  add constraint presence_report_sessions_user_fkey
    foreign key (user_id) references chat.presence_reports (user_id) on delete cascade;

insert into chat.presence_reports (user_id)
select v.user_id from chat.presence_sessions v
on conflict on constraint presence_reports_pkey do nothing;

-- made by chat.install_host_mapping(), and to the table of people until now
alter table chat.presence_sessions drop constraint if exists presence_sessions_user_id_fkey;
alter table chat.presence_sessions
  add constraint presence_sessions_user_fkey
    foreign key (user_id) references chat.presence_reports (user_id) on delete cascade;
