-- The page that somebody looks at moves out of user_presence. That table is published, and whoever may see a row of it
-- sees all its columns, in a query as well as in a row change.

create table chat.presence_pages (
  user_id uuid not null,
  page text not null,
  constraint presence_pages_pkey primary key (user_id),
  constraint presence_pages_page_is_short check (char_length(page) <= 2048)
);

comment on table chat.presence_pages is 'Where in the application people are, with the setting share_current_page. Read through chat.pages_of() alone.';

insert into chat.presence_pages (user_id, page)
select p.user_id, p.current_page
from public.user_presence p
where p.current_page is not null;

-- deferred: a client's own insert of its row keeps its page before the row is there
alter table chat.presence_pages
  add constraint presence_pages_user_fkey
    foreign key (user_id) references public.user_presence (user_id) on delete cascade deferrable initially deferred;

-- One row for each person who has a page. The column stays for clients that write it: a trigger takes the value out.
update public.user_presence set current_page = null where current_page is not null;
