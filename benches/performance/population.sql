-- Fills a database with users who have been chatting for a while. Most conversations are short and
-- a few are huge. All grew at the same time, so adjacent rows of the table rarely belong to one
-- conversation. All rows pass through the triggers, as in an import. The benchmark replaces
-- {people}, {messages} and {long} by numbers.

select setseed(0.5);

create function pg_temp.person(number bigint)
returns uuid
language sql
immutable
as $$ select ('50000000-0000-4000-8000-' || lpad(to_hex(number), 12, '0'))::uuid $$;

create function pg_temp.conversation(number bigint)
returns uuid
language sql
immutable
as $$ select ('60000000-0000-4000-8000-' || lpad(to_hex(number), 12, '0'))::uuid $$;

-- Returns three syllables. The same number yields the same word here and in the benchmark.
create function pg_temp.word(number bigint)
returns text
language sql
immutable
as $$
  select string_agg(
    substr('bcdfghjklmnprstvz', 1 + (syllable % 17)::int, 1) || substr('aeiou', 1 + (syllable / 17 % 5)::int, 1),
    ''
    order by place
  )
  from (values (0, number * 7919 % 85), (1, number * 7919 / 85 % 85), (2, number * 7919 / 7225 % 85)) s (place, syllable)
$$;

insert into public.teams (id, name) values ('50000000-0000-4000-8000-0000000000ff', 'Population');

insert into public.users (id, email, full_name, team_id)
select pg_temp.person(n), format('person-%s@population.example', n), 'Person ' || n, '50000000-0000-4000-8000-0000000000ff'
from generate_series(0, {people} + 3) n;

-- Texts of one to about forty words. As in natural languages, a few words are frequent and most are
-- rare.
create temporary table texts as
select
  t as number,
  (
    select string_agg(pg_temp.word((20000 * power(random(), 4))::bigint), ' ')
    from generate_series(1, 1 + (-8 * ln(1 - random()))::int + 0 * t)
  ) as body
from generate_series(0, 49999) t;

create index on texts (number);
analyze texts;

-- Ten conversations for each user. The nth of all conversations has 1/n of the length of the first.
create temporary table talks as
select
  n as number,
  pg_temp.conversation(n) as id,
  pg_temp.person(n / 10) as speaker,
  pg_temp.person((n / 10 + 1 + (n % 10 * 97 + n / 10 * 13) % ({people} / 2 - 1)) % {people}) as listener,
  greatest(1, ({messages} / ln({people} * 10) / (n + 1))::int) as messages
from generate_series(0, {people} * 10 - 1) n;

-- A separate user with three conversations: one as long as all others together, one of a page, and
-- an empty one.
insert into talks
values
  (-1, pg_temp.conversation({people} * 10), pg_temp.person({people}), pg_temp.person({people} + 1), 0),
  (-2, pg_temp.conversation({people} * 10 + 1), pg_temp.person({people}), pg_temp.person({people} + 2), 50),
  (-3, pg_temp.conversation({people} * 10 + 2), pg_temp.person({people}), pg_temp.person({people} + 3), 0);

insert into public.user_conversations (id, participant_1_id, participant_2_id)
select id, speaker, listener
from talks;

insert into public.user_messages (conversation_id, sender_id, content)
select said.id, said.sender, texts.body
from (
  select id, case when random() < 0.5 then speaker else listener end as sender, floor(50000 * random())::bigint as text
  from talks
  cross join lateral generate_series(1, messages)
  order by random()
) said
join texts on texts.number = said.text;

insert into public.user_messages (conversation_id, sender_id, content)
select said.id, said.sender, texts.body
from (
  select id, case when random() < 0.5 then speaker else listener end as sender, floor(50000 * random())::bigint as text
  from talks
  cross join lateral generate_series(1, {long})
  where number = -1
) said
join texts on texts.number = said.text;

drop table texts, talks;
