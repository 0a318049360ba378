# frozen_string_literal: true

require 'socket'

require 'fluent/plugin/input'
require 'fluent/plugin/bridge/client_options'
require 'fluent/plugin/bridge/consume_loop'
require 'fluent/plugin/bridge/consumer'
require 'fluent/plugin/bridge/consumer_metrics'
require 'fluent/plugin/bridge/delivery'
require 'fluent/plugin/bridge/one_writer'
require 'fluent/plugin/bridge/parsed_streams'
require 'fluent/plugin/bridge/pipeline'
require 'fluent/plugin/bridge/raw_streams'
require 'fluent/plugin/bridge/unit_errors'

module Fluent
  module Plugin
    # Reads topics as a member of a consumer group. A batch of messages runs through the pipeline in this input's
    # own thread, and its offsets are committed when everything that came of it has been delivered: in the same
    # Kafka transaction, or after the delivery reports.
    class BridgeKafkaInput < Input
      Fluent::Plugin.register_input('bridge_kafka', self)
      include Bridge::ClientOptions

      helpers :thread, :parser

      desc 'Topics to read; one that begins with ^ is a regular expression.'
      config_param :topics, :array, value_type: :string
      desc 'The consumer group that all replicas are members of.'
      config_param :consumer_group, :string
      desc 'exactly_once: results and offsets in one transaction; at_least_once: offsets after the results.'
      config_param :delivery, :enum, list: %i[exactly_once at_least_once], default: :exactly_once
      desc "The events' tag; ${topic} stands for the topic."
      config_param :tag, :string, default: '${topic}'
      desc 'Consumers in each worker, each with a thread and a producer of its own.'
      config_param :threads, :integer, default: 1
      desc 'Messages in a batch at most.'
      config_param :batch_events, :integer, default: 5000
      desc 'Bytes in a batch, about.'
      config_param :batch_bytes, :size, default: 4 * 1024 * 1024
      desc 'Seconds to wait for more after the first message of a batch.'
      config_param :batch_wait, :float, default: 0.005
      desc 'The field that gets the payload, as it is.'
      config_param :payload_key, :string, default: 'message'
      desc "The field that gets the message's key."
      config_param :key_field, :string, default: nil
      desc "The field that gets the message's headers, as a map."
      config_param :headers_field, :string, default: nil
      desc 'The field that gets the topic.'
      config_param :topic_field, :string, default: nil
      desc 'The field that gets the partition.'
      config_param :partition_field, :string, default: nil
      desc 'The field that gets the offset.'
      config_param :offset_field, :string, default: nil
      desc "The field that gets the message's timestamp, in milliseconds."
      config_param :timestamp_field, :string, default: nil
      desc "An event's time: now, or its message's timestamp."
      config_param :time_source, :enum, list: %i[now kafka], default: :now
      desc 'What transactional ids begin with; must differ from replica to replica and stay the same over restarts.'
      config_param :transactional_id, :string, default: nil
      desc 'What group.instance.id begins with (static membership); must differ from replica to replica.'
      config_param :group_instance_id, :string, default: nil
      desc 'Seconds without a heartbeat until the group gives the partitions to others.'
      config_param :session_timeout, :float, default: 45.0
      desc 'Seconds that a batch may take until the broker aborts its transaction.'
      config_param :transaction_timeout, :float, default: 60.0
      desc 'Seconds to wait before a batch that failed comes again; doubles each time.'
      config_param :retry_wait, :float, default: 0.5
      desc 'Seconds to wait at most.'
      config_param :retry_max_interval, :float, default: 10.0
      desc 'Settings of librdkafka for the consumers alone.'
      config_param :consumer_options, :hash, default: {}
      desc 'Settings of librdkafka for the producers of results alone.'
      config_param :producer_options, :hash, default: {}

      # Without the section the payload is not parsed; the parser that is made all the same has no say then.
      config_section :parse do
        config_set_default :@type, 'none'
      end

      # What delivery depends on is not the user's to change.
      FIXED = {
        'enable.auto.commit' => 'false',
        'enable.auto.offset.store' => 'false',
        'enable.partition.eof' => 'false'
      }.freeze
      # Seconds for which a shutdown waits for the batches that are in the pipeline. What is given up comes again.
      SHUTDOWN = 10
      private_constant :FIXED, :SHUTDOWN

      # @return [Boolean] several workers share the partitions as several replicas do
      def multi_workers_ready?
        true
      end

      def configure(conf)
        super
        check
        @parsed = !conf.elements('parse').empty?
        @streams = streams
        @tags = {}
        # Wrong settings are to be found by --dry-run, before anything is connected.
        Bridge::ClientOptions.check(:consumer, options_of_consumer(0))
        Bridge::ClientOptions.check(:producer, options_of_producer(0))
        tags = known_tags
        pipeline = Bridge::Pipeline.new(router, tags.compact, all_known: tags.all?, label: conf['@label'])
        errors = Fluent::Engine.root_agent.error_collector
        pipelines = [pipeline, (Bridge::Pipeline.new(errors, [], all_known: false, label: '@ERROR') if errors)].compact
        pipelines.each { |one| one.check(exactly_once: exactly_once?, brokers: brokers) }
        warn_of(pipelines.flat_map(&:memory_buffered), errors)
      end

      def start
        super
        Fluent::Engine.root_agent.extend(Bridge::UnitErrors)
        @loops = Array.new(threads) { |index| consume_loop(index) }
        @consumers = @loops.each_with_index.map { |one, index| thread_create(:"bridge_kafka_#{index}") { run(one) } }
        thread_create(:bridge_kafka_keep_alive) do
          while thread_current_running?
            sleep 1
            @loops.each(&:keep_alive)
          end
        end
      end

      # The pipeline behind is still there (root_agent.rb, shutdown): batches that have begun are committed.
      def shutdown
        @loops&.each(&:stop)
        ends = Fluent::Clock.now + SHUTDOWN
        @consumers&.each do |thread|
          next if thread.join([ends - Fluent::Clock.now, 0].max)

          log.warn("a batch is still in the pipeline after #{SHUTDOWN} seconds and is given up: it is not committed and comes again",
                   thread: thread.name)
          thread.kill
        end
        super
      end

      private

      # With --with-source-only, and for a moment in a restart without downtime, Fluentd puts what inputs emit into a
      # buffer of its own (event_emitter.rb, router; root_agent.rb, cancel_source_only!): it would be committed there.
      def run(consume_loop)
        held = @_event_emitter_force_source_only_router
        log.info('nothing is read as long as Fluentd runs with source only') if held
        sleep 0.1 while @_event_emitter_force_source_only_router && thread_current_running?
        consume_loop.run if thread_current_running?
      end

      def exactly_once?
        delivery == :exactly_once
      end

      def check
        raise Fluent::ConfigError, 'topics is empty: name at least one' if topics.empty?
        raise Fluent::ConfigError, 'consumer_group is empty: name the group that all replicas share' if consumer_group.strip.empty?

        %i[threads batch_events batch_bytes].each do |name|
          raise Fluent::ConfigError, "#{name} must be 1 or more" unless public_send(name) >= 1
        end
        %i[session_timeout transaction_timeout retry_wait retry_max_interval].each do |name|
          raise Fluent::ConfigError, "#{name} must be more than 0 (seconds)" unless public_send(name).positive?
        end
        raise Fluent::ConfigError, 'batch_wait must not be negative (seconds)' if batch_wait.negative?

        twice = [*fields.values, payload_key].tally.select { |_, times| times > 1 }.keys
        raise Fluent::ConfigError, "#{twice.join(', ')} is the name of several fields: give each its own" unless twice.empty?

        check_options
      end

      def check_options
        fixed = exactly_once? ? FIXED.merge('isolation.level' => 'read_committed') : FIXED
        rdkafka_options.merge(consumer_options).each do |name, value|
          wanted = fixed[name.to_s]
          if wanted && wanted != value.to_s
            raise Fluent::ConfigError, "#{name} must stay #{wanted}: this input commits offsets itself, when results are delivered"
          end
          next if name.to_s != 'auto.offset.reset' || Bridge::StartOffsets::RESETS.key?(value.to_s)

          raise Fluent::ConfigError, "auto.offset.reset #{value}: use earliest or latest, where the group has no offset yet"
        end
        %w[transactional.id enable.idempotence].each do |name|
          next unless rdkafka_options.merge(producer_options).transform_keys(&:to_s).key?(name)

          raise Fluent::ConfigError, "#{name} is set by this input: use `transactional_id` and `delivery`"
        end
      end

      def warn_of(memory_buffered, errors)
        memory_buffered.each do |output|
          log.warn("#{output} buffers in memory: offsets are committed while events wait there, and a kill loses them; " \
                   'use a file buffer, or no buffer')
        end
        return if errors || !@parsed

        log.warn('there is no <label @ERROR>: a payload that cannot be parsed stops this input; add one to keep it')
      end

      # @return [Array<String, nil>] nil stands for those of a regular expression
      def known_tags
        return [tag] unless tag.include?('${topic}')

        topics.map { |topic| tag_of(topic) unless topic.start_with?('^') }
      end

      def tag_of(topic)
        tag.gsub('${topic}', topic)
      end

      def fields
        { key: key_field, headers: headers_field, topic: topic_field, partition: partition_field,
          offset: offset_field, timestamp: timestamp_field }.compact
      end

      def streams
        kafka_time = time_source == :kafka
        return Bridge::RawStreams.new(payload_key: payload_key, fields: fields, kafka_time: kafka_time) unless @parsed

        Bridge::ParsedStreams.new(
          parser_create,
          payload_key: payload_key, fields: fields, kafka_time: kafka_time,
          on_error: ->(tag, time, record, error) { router.emit_error_event(tag, time, record, error) }
        )
      end

      def consume_loop(index)
        metrics = Bridge::ConsumerMetrics.new(group: consumer_group, worker: fluentd_worker_id)
        delivery_class = exactly_once? ? Bridge::Delivery::ExactlyOnce : Bridge::Delivery::AtLeastOnce
        Bridge::ConsumeLoop.new(
          consumer: -> { consumer(index, metrics) },
          delivery: delivery_class.new(options_of_producer(index), log: log),
          size: Bridge::ConsumeLoop::Size.new(batch_events, batch_bytes, batch_wait),
          backoff: Bridge::ConsumeLoop::Backoff.new(retry_wait, retry_max_interval),
          metrics: metrics,
          log: log
        ) { |batch| emit(batch) }
      end

      def consumer(index, metrics)
        rebalanced = lambda do |event, partitions|
          metrics.rebalanced(event, partitions)
          named = partitions.group_by(&:first).map { |topic, of| "#{topic} #{of.map(&:last).sort}" }
          log.info("partitions #{event}", group: consumer_group, thread: index, partitions: named.join(', ')) unless partitions.empty?
        end
        Bridge::Consumer.new(options_of_consumer(index), topics, log: log, on_rebalance: rebalanced)
      end

      # One of the threads of one of the workers of one of the replicas.
      def numbered(prefix, index)
        [prefix, fluentd_worker_id, index].join('-')
      end

      def options_of_consumer(index)
        options = {
          'group.id' => consumer_group,
          'auto.offset.reset' => 'earliest', # where the group has no offset yet
          'isolation.level' => 'read_committed',
          'partition.assignment.strategy' => 'cooperative-sticky',
          'session.timeout.ms' => (session_timeout * 1000).round,
          # A batch and what waits behind it is all that has to be in memory; by default it is 64 MiB.
          'queued.max.messages.kbytes' => 16_384,
          # How soon a new topic that a regular expression matches is found; by default after 5 minutes.
          'topic.metadata.refresh.interval.ms' => 30_000,
          # By default a full queue keeps the fetcher from asking for a second.
          'fetch.queue.backoff.ms' => 10
        }
        options['group.instance.id'] = numbered(group_instance_id, index) if group_instance_id
        given = client_options.merge(consumer_options.to_h { |name, value| [name.to_s, value.to_s] })
        # The broker decides about these two in the new protocol (KIP-848).
        %w[partition.assignment.strategy session.timeout.ms].each { |name| options.delete(name) } if given['group.protocol'] == 'consumer'
        options.merge(given, FIXED)
      end

      def options_of_producer(index)
        # A batch is flushed as soon as it has been produced, and a flush does not wait. Without this the client's
        # thread wakes up again and again to send a part of it: a sixth of all that Fluentd needs.
        options = { 'linger.ms' => '100' }.merge(client_options)
        if exactly_once?
          options['transactional.id'] = numbered(transactional_id || default_transactional_id, index)
          options['transaction.timeout.ms'] = (transaction_timeout * 1000).round
        end
        options.merge(producer_options.to_h { |name, value| [name.to_s, value.to_s] })
      end

      def default_transactional_id
        # Another input with the same id would take over the transactions of this one.
        ['fluent-bridge', consumer_group, Socket.gethostname, plugin_id_configured? ? plugin_id : topics.join('+')].join('-')
      end

      def emit(batch)
        streams = @streams.build(batch) { |topic| @tags[topic] ||= tag_of(topic).freeze }
        batch.free # it has been copied: while the pipeline runs it would only take up memory
        streams.each { |tag, stream| router.emit_stream(tag, stream) }
      end
    end
  end
end
