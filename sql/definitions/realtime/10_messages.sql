-- Broadcasts from the database. This file changes only objects created by Rapport; Supabase's
-- objects stay unchanged.
--
-- The functions in this file run as their caller, with the caller's search path, because triggers
-- call them. They are subject to the policies of realtime.messages, which may call functions that
-- name tables without a schema. Types in the bodies are qualified: when a definer function with an
-- empty path calls these functions, an unqualified name would find a temporary type of the original
-- caller.

do $$
begin
  if coalesce(obj_description(to_regclass('realtime.messages'), 'pg_class') not like 'Made by Rapport%', true) then
    return;
  end if;

  create or replace function realtime.topic()
  returns text
  language sql
  stable
  as $body$
select nullif(current_setting('realtime.topic', true), '')::pg_catalog.text;
$body$;

  -- Users may call this from their own triggers, so it is security invoker: the policies of
  -- realtime.messages decide.
  create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
  returns void
  language plpgsql
  as $body$
  declare
    message_id constant pg_catalog.uuid := gen_random_uuid();
  begin
    begin
      -- Policies may call realtime.topic().
      perform set_config('realtime.topic', send.topic, true);
      insert into realtime.messages (id, payload, event, topic, private, extension)
      values (
        message_id,
        -- A payload that is not an object cannot contain an id and is sent unchanged.
        case when jsonb_typeof(send.payload) = 'object' and not send.payload ? 'id'
          then send.payload || jsonb_build_object('id', message_id)
          else send.payload
        end,
        send.event,
        send.topic,
        send.private,
        'broadcast'
      );
    exception when others then
      -- A failed broadcast must never roll back the change that it announces.
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
    end;
  end
  $body$;

  create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true)
  returns void
  language plpgsql
  as $body$
  begin
    begin
      perform set_config('realtime.topic', send_binary.topic, true);
      insert into realtime.messages (binary_payload, event, topic, private, extension)
      values (send_binary.payload, send_binary.event, send_binary.topic, send_binary.private, 'broadcast');
    exception when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
    end;
  end
  $body$;

  create or replace function realtime.broadcast_changes(
    topic_name text,
    event_name text,
    operation text,
    table_name text,
    table_schema text,
    new record,
    old record,
    level text default 'ROW'
  )
  returns void
  language plpgsql
  as $body$
  begin
    if level = 'STATEMENT' then
      raise exception 'function can only be triggered for each row, not for each statement';
    end if;
    if operation in ('INSERT', 'UPDATE', 'DELETE') then
      perform realtime.send(
        jsonb_build_object(
          'old_record', to_jsonb(old),
          'record', to_jsonb(new),
          'operation', operation,
          'table', table_name,
          'schema', table_schema
        ),
        event_name,
        topic_name
      );
    else
      raise exception 'Unexpected operation type: %', operation;
    end if;
  exception when others then
    raise exception 'Failed to process the row: %', sqlerrm;
  end
  $body$;

  begin
    alter function realtime.topic() owner to supabase_realtime_admin;
    alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;
    alter function realtime.send_binary(bytea, text, text, boolean) owner to supabase_realtime_admin;
    alter function realtime.broadcast_changes(text, text, text, text, text, record, record, text) owner to supabase_realtime_admin;
  exception when insufficient_privilege then
    raise notice 'The functions of schema realtime still belong to %.', current_user;
  end;
end
$$;
