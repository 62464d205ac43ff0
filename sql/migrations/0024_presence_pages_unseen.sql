-- A foreign key locks the row that it refers to, and a lock moves its xmax. A page therefore refers to the row of
-- presence_reports, which no client reads, and no longer to the row of user_presence, which others see.

insert into chat.presence_reports (user_id)
select g.user_id from chat.presence_pages g
on conflict on constraint presence_reports_pkey do nothing;

-- deferred: a client's own insert of its row keeps its page before the row of presence_reports may be there
alter table chat.presence_pages
  drop constraint presence_pages_user_fkey,
  add constraint presence_pages_user_fkey
    foreign key (user_id) references chat.presence_reports (user_id) on delete cascade deferrable initially deferred;
