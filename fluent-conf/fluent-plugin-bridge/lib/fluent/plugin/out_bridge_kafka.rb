# frozen_string_literal: true

require 'fluent/plugin/output'
require 'fluent/plugin/formatter_single_value'
require 'fluent/plugin/bridge/client_options'
require 'fluent/plugin/bridge/payload_scanner'
require 'fluent/plugin/bridge/producer'
require 'fluent/plugin/bridge/record_fields'
require 'fluent/plugin/bridge/unit_of_work'

module Fluent
  module Plugin
    # Writes events to Kafka. Without <buffer>, behind a bridge_kafka input, into the input's unit of
    # work; otherwise with a producer of its own, and an emit or a chunk is done when every message of it
    # has been delivered.
    class BridgeKafkaOutput < Output
      Fluent::Plugin.register_output('bridge_kafka', self)

      helpers :inject, :formatter, :event_emitter, :record_accessor

      include Bridge::ClientOptions
      include Bridge::RecordFields

      desc 'Seconds to wait for delivery before an emit or a chunk has failed; not in a unit of work.'
      config_param :delivery_timeout, :time, default: 30

      config_section :buffer do
        config_set_default :chunk_keys, ['tag']
      end
      config_section :format do
        config_set_default :@type, 'json'
      end

      # Formatters that end a payload with a newline if nobody tells them not to.
      LINES = %w[json single_value hash csv tsv ltsv].freeze
      # Messages, and bytes of them, that are collected before they are produced.
      BATCH = 5000
      BATCH_BYTES = 8 * 1024 * 1024
      # Seconds for which a shutdown waits for delivery.
      SHUTDOWN = 10
      private_constant :LINES, :BATCH, :BATCH_BYTES, :SHUTDOWN

      # An event that no broker will take, by its number in the emit or chunk, and why.
      Refused = Struct.new(:index, :error)
      private_constant :Refused

      def initialize
        super
        @idle = []
        @producers = []
        @mutex = Mutex.new
        @give_up_at = nil
      end

      # @return [Boolean] whether events are kept in a buffer: then they are in no unit of work
      def buffered?
        @has_buffer || as_secondary
      end

      def multi_workers_ready?
        true
      end

      def prefer_buffered_processing # rubocop:disable Naming/PredicateMethod -- Fluentd's name
        false
      end

      def configure(conf)
        @has_buffer = conf.elements(name: 'buffer').any?
        @brokers_named = conf.key?('brokers')
        format = conf.elements(name: 'format').first || conf.add_element('format')
        format['@type'] ||= 'json'
        format['add_newline'] = 'false' if LINES.include?(format['@type']) && !format.key?('add_newline')
        super
        configure_fields
        check_placeholders
        @formatter = formatter_create
        configure_payload
        @options = client_options
        @options['message.timeout.ms'] ||= @options.delete('delivery.timeout.ms') || (delivery_timeout * 1000).to_i
      end

      def start
        super
        return if Fluent::Engine.root_agent.labels.key?('@ERROR')

        log.warn 'there is no <label @ERROR>: a record that Kafka refuses is only written to this log, and in a unit of work ' \
                 'it stops the input; add one with an output to keep such records'
      end

      # Raises unless everything was delivered; in a unit of work the input waits for delivery.
      def process(tag, events)
        unit = Bridge::UnitOfWork.current
        return deliver(tag, events, expand(topic, tag)) unless unit

        begin
          check_cluster(unit.producer)
          refused = produce(unit.producer, tag, events, expand(topic, tag))
          raise refused.first.error unless refused.empty? || error_stream?

          emit_refused(tag, events, refused)
        rescue StandardError => e
          # With an @ERROR label, what is raised here would never reach the input.
          unit.fail(e)
        end
      end

      # Raises unless every message of the chunk was delivered.
      def write(chunk)
        tag = chunk.metadata.tag || plugin_id
        deliver(tag, chunk, topic && extract_placeholders(topic, chunk))
      end

      def shutdown
        @mutex.synchronize do
          @give_up_at = now + SHUTDOWN
          @producers.each { |producer| producer.give_up_in(SHUTDOWN) }
        end
        super
      end

      def close
        super
        @mutex.synchronize { @producers.dup }.each { |producer| discard(producer) }
      end

      private

      def configure_payload
        single = @formatter.instance_of?(SingleValueFormatter) && !@formatter.add_newline
        @plain = plain_fields?
        @payload_key = single ? @formatter.message_key : nil
        return if !single || !@plain || default_message_key || @_inject_enabled

        @scanner = Bridge::PayloadScanner.new(@payload_key, message_key_key)
      end

      def check_placeholders
        @topic_varies = topic&.match?(/\$\{|%/)
        return unless @topic_varies

        keys = get_placeholders_keys(topic)
        time = Time.now.strftime(topic) != topic
        if buffered?
          missing = keys - @chunk_keys
          missing << 'tag' if get_placeholders_tag(topic).any? && !@chunk_key_tag
          missing << 'time' if time && !@chunk_key_time
          raise Fluent::ConfigError, "topic #{topic}: give <buffer> the chunk keys #{missing.join(', ')}" unless missing.empty?
        elsif keys.any? || time
          raise Fluent::ConfigError, "topic #{topic}: without <buffer> only ${tag} and ${tag[n]} stand for something; use topic_key"
        end
      end

      def expand(topic, tag)
        return topic unless @topic_varies

        parts = tag.split('.')
        topic.gsub(CHUNK_TAG_PLACEHOLDER_PATTERN) { ::Regexp.last_match(1) == 'tag' ? tag : parts[::Regexp.last_match(1)[4..].to_i].to_s }
      end

      def check_cluster(producer)
        theirs = producer.options['bootstrap.servers']
        return if !@brokers_named || theirs == brokers

        raise Fluent::ConfigError, "brokers is #{brokers}, but the input's are #{theirs}: what is read and written in one unit of work " \
                                   'is in one cluster; leave brokers out here, or give this output a <buffer>'
      end

      # Whether refused records are kept: behind the output of an @ERROR label there is nothing any more.
      def error_stream?
        label = Fluent::Engine.root_agent.labels['@ERROR']
        !label.nil? && !label.event_router.equal?(router)
      end

      def deliver(tag, events, topic)
        with_producer do |producer|
          refused = produce(producer, tag, events, topic)
          begin
            producer.flush
          rescue Bridge::DeliveryFailed => e
            raise unless e.refused_only?

            refused += e.refused.map { |message| refusal(message.index, message.topic, message.code) }
          end
          emit_refused(tag, events, refused)
        end
      rescue Bridge::KafkaError => e
        # It says what is wrong and where. Fluentd would log thirty lines of Ruby with each retry.
        e.set_backtrace([])
        raise
      end

      # @return [Array<Refused>]
      def produce(producer, tag, events, topic)
        refused = []
        index = 0
        packed = packed(events) if @scanner
        if packed
          begins, index = @scanner.dup.scan(packed) { |messages| hand_over(producer, topic, messages, refused) }
          return refused if begins == packed.bytesize

          events = Fluent::MessagePackEventStream.new(packed.byteslice(begins..))
        end
        produce_decoded(producer, tag, events, topic, index, refused)
        refused
      end

      # The stream as it came, if it came packed: packing it to scan it would cost more than it saves.
      def packed(events)
        case events
        when Fluent::MessagePackEventStream then events.to_msgpack_stream
        when Fluent::Plugin::Buffer::Chunk then events.read
        end
      end

      def produce_decoded(producer, tag, events, topic, index, refused)
        batches = Hash.new { |hash, name| hash[name] = Bridge::Messages.new }
        count = bytes = 0
        events.each do |time, record|
          begin
            bytes += add(batches, producer, tag, time, record, topic, index)
          rescue StandardError => e
            raise if e.is_a?(Bridge::KafkaError) && !passable?(e)

            refused << Refused.new(index, e)
          end
          index += 1
          count += 1
          next if count < BATCH && bytes < BATCH_BYTES

          hand_over_all(producer, batches, refused)
          count = bytes = 0
        end
        hand_over_all(producer, batches, refused)
      end

      # A topic that an event names must not hold up the others. One that the configuration names is for the user to create.
      def passable?(error)
        error.topic? && (@topic_varies || !topic_key.nil?)
      end

      def add(batches, producer, tag, time, record, topic, index)
        name = topic_of(record, topic)
        raise ArgumentError, "no topic: the record has no field #{topic_key}, and topic is not set" if name.nil? || name.empty?

        record = inject_values_to_record(tag, time, record)
        payload = payload_of(tag, time, record)
        batches[name].add(payload, key_of(record), index, **(@plain ? {} : fields_of(producer, name, time, record)))
        payload ? payload.bytesize : 0
      end

      def payload_of(tag, time, record)
        if @payload_key
          value = record.fetch(@payload_key) { raise ArgumentError, "no payload: the record has no field #{@payload_key}" }
          return if value.nil? # a tombstone
        end
        @formatter.format(tag, time, without_excluded(record))
      end

      def hand_over_all(producer, batches, refused)
        batches.each do |name, messages|
          hand_over(producer, name, messages, refused)
          messages.free
        end
        batches.clear
      end

      def hand_over(producer, topic, messages, refused)
        producer.produce(topic, messages).each { |index, code| refused << refusal(index, topic, code) }
      rescue Bridge::KafkaError => e
        raise unless passable?(e)

        messages.size.times { |position| refused << Refused.new(messages.index(position), e) }
      end

      def refusal(index, topic, code)
        Refused.new(index, Bridge::KafkaError.new("Kafka topic #{topic}", code))
      end

      def emit_refused(tag, events, refused)
        return if refused.empty?

        errors = refused.to_h(&:to_a)
        index = -1
        events.each do |time, record|
          error = errors[index += 1]
          router.emit_error_event(tag, time, record, error) if error
        end
      end

      # One producer is used by one thread at a time, so that what fails belongs to what was produced.
      def with_producer
        producer = @mutex.synchronize { @idle.pop } || new_producer
        begin
          result = yield producer
          reusable = !producer.failed?
          result
        ensure
          # One that was given up for something may deliver it later still.
          reusable ? @mutex.synchronize { @idle.push(producer) } : discard(producer)
        end
      end

      def new_producer
        producer = Bridge::Producer.new(@options, log: log)
        @mutex.synchronize do
          @producers << producer
          producer.give_up_in([@give_up_at - now, 0].max) if @give_up_at
        end
        producer
      end

      def discard(producer)
        @mutex.synchronize do
          @producers.delete(producer)
          @idle.delete(producer)
        end
        producer.close
      end

      def now
        Process.clock_gettime(Process::CLOCK_MONOTONIC)
      end
    end
  end
end
