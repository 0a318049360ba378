# frozen_string_literal: true

module Fluent
  module Plugin
    module Bridge
      # What of a record becomes the topic, key, partition, headers and time of its message. The names
      # are those of fluent-plugin-kafka's kafka2, but no field has a meaning before it is named.
      module RecordFields
        def self.included(plugin)
          plugin.class_eval do
            desc 'Topic. ${tag} and ${tag[n]} stand for the tag; with <buffer>, ${key} and %Y for chunk keys.'
            config_param :topic, :string, default: nil, alias: :default_topic
            desc 'Field with the topic; without it in a record, `topic`.'
            config_param :topic_key, :string, default: nil
            desc "Field with the message's key."
            config_param :message_key_key, :string, default: nil
            desc 'Key of messages without that field.'
            config_param :default_message_key, :string, default: nil
            desc "Field with the partition's number."
            config_param :partition_key, :string, default: nil
            desc 'Partition of messages without that field.'
            config_param :default_partition, :integer, default: nil
            desc "Field that decides the partition in the message key's place."
            config_param :partition_key_key, :string, default: nil
            desc 'Leave the field out of the payload.'
            config_param :exclude_topic_key, :bool, default: false
            desc 'Leave the field out of the payload.'
            config_param :exclude_message_key, :bool, default: false
            desc 'Leave the field out of the payload.'
            config_param :exclude_partition, :bool, default: false
            desc 'Leave the field out of the payload.'
            config_param :exclude_partition_key, :bool, default: false
            desc 'Headers of every message.'
            config_param :headers, :hash, default: {}, value_type: :string
            desc 'Headers from records: name and record accessor, as in {"site":"$.page.site"}.'
            config_param :headers_from_record, :hash, default: {}, value_type: :string
            desc "Give messages the events' time, in place of the time at which they are produced."
            config_param :use_event_time, :bool, default: false
          end
        end

        private

        def configure_fields
          raise Fluent::ConfigError, 'topic or topic_key is needed' if topic.nil? && topic_key.nil?

          @excluded = [
            (topic_key if exclude_topic_key), (message_key_key if exclude_message_key),
            (partition_key if exclude_partition), (partition_key_key if exclude_partition_key)
          ].compact
          @header_accessors = headers_from_record.transform_values { |path| record_accessor_create(path) }
        end

        # Whether messages have nothing of the record but payload and key.
        def plain_fields?
          !topic_key && !partition_key && !default_partition && !partition_key_key &&
            headers.empty? && headers_from_record.empty? && !use_event_time
        end

        def topic_of(record, topic)
          named = topic_key && record[topic_key]
          named.nil? ? topic : named.to_s
        end

        # @return [Hash] arguments of Messages#add
        def fields_of(producer, name, time, record)
          { partition: partition_of(producer, name, record),
            timestamp: use_event_time ? milliseconds(time) : nil,
            headers: headers_of(record) }
        end

        def key_of(record)
          key = message_key_key && record[message_key_key]
          key = default_message_key if key.nil?
          key&.to_s
        end

        def partition_of(producer, name, record)
          number = partition_key && record[partition_key]
          text = partition_key_key && record[partition_key_key]
          return producer.partition(name, text.to_s) if number.nil? && !text.nil?

          number = number.nil? ? default_partition : Integer(number)
          raise ArgumentError, "topic #{name} has no partition #{number}" unless number.nil? || producer.partition?(name, number)

          number
        end

        def headers_of(record)
          return headers.empty? ? nil : headers if @header_accessors.empty?

          found = headers.dup
          @header_accessors.each do |name, accessor|
            value = accessor.call(record)
            found[name] = value.to_s unless value.nil?
          end
          found
        end

        def milliseconds(time)
          return (time.sec * 1000) + (time.nsec / 1_000_000) if time.is_a?(Fluent::EventTime)

          (time * 1000).to_i
        end

        def without_excluded(record)
          @excluded.empty? ? record : record.except(*@excluded)
        end
      end
    end
  end
end
