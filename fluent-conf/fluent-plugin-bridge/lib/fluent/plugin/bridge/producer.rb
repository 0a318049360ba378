# frozen_string_literal: true

require 'fluent/plugin/bridge/client_log'
require 'fluent/plugin/bridge/client_options'
require 'fluent/plugin/bridge/delivery_reports'
require 'fluent/plugin/bridge/messages'
require 'fluent/plugin/bridge/topics'
require 'fluent/plugin/bridge/transactions'

module Fluent
  module Plugin
    module Bridge
      # A Kafka producer that takes messages by the batch and tells when all were delivered. Used by
      # one thread at a time.
      #
      # librdkafka's events are polled here, because callbacks from its threads into Ruby are slow and
      # block at exit. With delivery.report.only.error only failures make an event.
      class Producer
        include Transactions

        PRODUCER = 0 # rd_kafka_type_t
        DEFAULTS = {
          'enable.idempotence' => 'true', # implies acks=all, and keeps the order over retries
          'partitioner' => 'murmur2_random', # as Java's clients do, so that a key is in one partition for all of them
          'linger.ms' => '5' # flush does not wait for it
        }.freeze
        FIXED = { 'delivery.report.only.error' => 'true', 'log.queue' => 'true' }.freeze
        # What produce can refuse a message for by itself.
        REFUSALS = [Librdkafka::ERR_MSG_SIZE_TOO_LARGE, Librdkafka::ERR__UNKNOWN_PARTITION, Librdkafka::ERR__INVALID_ARG].freeze
        # Seconds between looks at what librdkafka reports, while waiting.
        STEP = 0.02
        private_constant :PRODUCER, :DEFAULTS, :FIXED, :REFUSALS, :STEP

        # @return [Hash{String => String}] librdkafka's settings
        attr_reader :options

        # @param options [Hash{String => Object}] settings of librdkafka; with a transactional.id it is transactional
        # @param log [Fluent::Log]
        # @raise [Fluent::ConfigError] the settings are unknown, wrong, or do not go together
        def initialize(options, log:)
          @options = DEFAULTS.merge(options, FIXED).transform_values(&:to_s)
          @log = ClientLog.new(log, transactional? ? "producer #{@options['transactional.id']}" : 'producer', @options)
          @reports = DeliveryReports.new(log, transactional: transactional?)
          @failed = false
          @give_up_at = nil
          open
        end

        # @return [Boolean] whether messages belong to transactions
        def transactional?
          @options.key?('transactional.id')
        end

        # @return [Boolean] whether it can do nothing any more, or may still deliver messages that it was given up for:
        #   close it then
        def failed?
          @failed
        end

        # Hands messages to librdkafka; {#flush} tells that they were delivered. Waits while the queue is full.
        #
        # @param topic [String]
        # @param messages [Messages] the caller frees them
        # @return [Array<Array(Integer, Integer)>] index and code of messages that are refused, whenever they come again
        # @raise [KafkaError] nothing or not all could be produced; `topic?` if for the topic's sake, then nothing
        def produce(topic, messages)
          return [] if messages.empty?

          handle = @topics.handle(topic)
          serve
          known = @reports.known(topic, messages)
          refused = known.map { |position, code| [messages.index(position), code] }
          messages = messages.without(known.keys) unless known.empty?
          pieces(topic, messages) { |from, to| enqueue(topic, handle, messages, from, to, refused) }
          refused
        end

        # @param topic [String]
        # @param number [Integer]
        # @return [Boolean] whether the topic has this partition; a message for one that it has not would wait for it
        # @raise [KafkaError] as {#produce}
        def partition?(topic, number)
          number >= 0 && number < @topics.partitions(topic, number)
        end

        # @param topic [String]
        # @param text [String] what decides
        # @return [Integer] the partition in which a message with this key would be
        # @raise [KafkaError] as {#produce}
        def partition(topic, text)
          Librdkafka.rd_kafka_msg_partitioner_murmur2(nil, text, text.bytesize, @topics.partitions(topic), nil, nil)
        end

        # Waits until every message was delivered.
        #
        # @param seconds [Float] for how long at most
        # @raise [DeliveryFailed] not all were
        def flush(seconds = delivery_timeout)
          deadline = now + seconds
          while drain(deadline) && (topic, messages = @reports.again.shift)
            produce(topic, messages)
            messages.free
          end
          fail_undelivered
          @reports.done unless transactional?
        end

        # Gives up soon whatever waits, so that a shutdown comes to an end.
        #
        # @param seconds [Float] from now
        def give_up_in(seconds)
          @topics.give_up_at = @give_up_at = now + seconds
        end

        # Gives up what is not delivered yet, and disconnects.
        def close
          return if @handle.nil?

          Librdkafka.rd_kafka_purge(@handle, Librdkafka::PURGE_QUEUE | Librdkafka::PURGE_INFLIGHT)
          serve
          @topics.close
          @log.close
          Librdkafka.rd_kafka_queue_destroy(@queue)
          Librdkafka.rd_kafka_destroy(@handle)
          @handle = nil
        end

        private

        def open
          configuration = ClientOptions.native(@options)
          Librdkafka.rd_kafka_conf_set_events(configuration, Librdkafka::EVENT_DR | Librdkafka::EVENT_ERROR | Librdkafka::EVENT_LOG)
          message = FFI::MemoryPointer.new(:char, 512)
          @handle = Librdkafka.rd_kafka_new(PRODUCER, configuration, message, 512)
          if @handle.null?
            @handle = nil
            Librdkafka.rd_kafka_conf_destroy(configuration)
            raise Fluent::ConfigError, "Kafka producer: #{message.read_string}"
          end
          @log.attach(@handle)
          @queue = Librdkafka.rd_kafka_queue_get_main(@handle)
          @topics = Topics.new(@handle, @log, method(:serve))
        end

        # Yields ranges of messages. Where the topic takes small batches only, one range at a time is on its way.
        def pieces(topic, messages)
          limit = @reports.limit(topic)
          return yield(0, messages.size) unless limit

          from = 0
          while from < messages.size
            to = from + 1
            bytes = messages.bytes_of(from)
            to += 1 while to < messages.size && (bytes += messages.bytes_of(to)) <= limit
            yield from, to
            drained = drain(now + delivery_timeout)
            fail_undelivered if transactional? || !drained
            from = to
          end
        end

        def enqueue(topic, handle, messages, from, to, refused)
          deadline = now + delivery_timeout
          drained = false
          while from < to
            stopped = send_range(topic, handle, messages, from, to, refused)
            return unless stopped

            # A message for which an empty queue has no room will never have any.
            if stopped == from && drained
              refused << [messages.index(from), Librdkafka::ERR__QUEUE_FULL]
              stopped += 1
            end
            from = stopped
            fail_undelivered if now > [deadline, @give_up_at].compact.min
            drained = Librdkafka.rd_kafka_flush(@handle, (STEP * 1000).to_i).zero?
            serve
          end
        end

        # @return [Integer, nil] where the queue was full
        def send_range(topic, handle, messages, from, to, refused)
          return send_each(topic, handle, messages, from, to, refused) if messages.extras?

          rows = messages.native + (from * Messages::BYTES)
          flags = Librdkafka::MSG_F_COPY | Librdkafka::MSG_F_PARTITION
          return if Librdkafka.rd_kafka_produce_batch(handle, Librdkafka::PARTITION_UNASSIGNED, flags, rows, to - from) == to - from

          # After the first that found no room librdkafka takes no other (rdkafka_msg.c, rd_kafka_produce_batch).
          (from...to).find do |position|
            full?(topic, messages, position, rows.get_int32((position - from) * Messages::BYTES), refused)
          end
        end

        def send_each(topic, handle, messages, from, to, refused)
          memory = nil
          (from...to).find do |position|
            arguments = messages.arguments(position, handle.address)
            memory = FFI::MemoryPointer.new(:uint64, arguments.size) if memory.nil? || memory.size < arguments.size * 8
            memory.put_array_of_uint64(0, arguments)
            error = KafkaError.take(Librdkafka.rd_kafka_produceva(@handle, memory, arguments.size / Messages::WORDS), topic)
            full?(topic, messages, position, error ? error.code : Librdkafka::OK, refused)
          end
        end

        # @return [Boolean] whether the queue was full for it
        def full?(topic, messages, position, code, refused)
          return false if code.zero?
          return true if code == Librdkafka::ERR__QUEUE_FULL

          unless REFUSALS.include?(code)
            @topics.doubt(topic)
            serve
            fail_undelivered(0)
            # In a transaction that has failed nothing can be produced; its commit will tell why.
            text = transactional? && code == Librdkafka::ERR__STATE ? 'the transaction has failed' : Librdkafka.rd_kafka_err2str(code)
            raise KafkaError.new("Kafka topic #{topic}", code, text, requires_abort: transactional?)
          end
          refused << [messages.index(position), code]
          false
        end

        # @return [Boolean] whether nothing is on its way any more
        def drain(deadline)
          deadline = [deadline, @give_up_at].compact.min
          loop do
            left = deadline - now
            empty = Librdkafka.rd_kafka_flush(@handle, (left.clamp(0, STEP) * 1000).ceil).zero?
            serve
            return empty if empty || left <= 0
          end
        end

        def fail_undelivered(waiting = Librdkafka.rd_kafka_outq_len(@handle))
          @failed = true if waiting.positive? && !transactional?
          failure = @reports.failure(waiting: waiting, reason: waiting.positive? ? @log.last_error&.message : nil)
          raise failure if failure
        end

        def serve
          until (event = Librdkafka.rd_kafka_queue_poll(@queue, 0)).null?
            case Librdkafka.rd_kafka_event_type(event)
            when Librdkafka::EVENT_DR then @reports.take(event).each { |topic| @topics.doubt(topic) }
            when Librdkafka::EVENT_ERROR then report(event)
            end
            Librdkafka.rd_kafka_event_destroy(event)
          end
          @log.serve
        end

        def report(event)
          code = Librdkafka.rd_kafka_event_error(event)
          text = Librdkafka.rd_kafka_event_error_string(event)
          fatal = Librdkafka.rd_kafka_event_error_is_fatal(event) == 1
          if fatal
            @failed = true
            FFI::MemoryPointer.new(:char, 512) do |message|
              code = Librdkafka.rd_kafka_fatal_error(@handle, message, 512)
              text = message.read_string
            end
          end
          @log.report(code, text, fatal: fatal)
        end

        # @return [Float] seconds after which librdkafka gives a message up
        def delivery_timeout
          milliseconds = @options['message.timeout.ms'] || @options['delivery.timeout.ms'] || 300_000
          milliseconds = @options['transaction.timeout.ms'] || 60_000 if transactional?
          (milliseconds.to_i / 1000.0) + 1
        end

        def now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end
      end
    end
  end
end
