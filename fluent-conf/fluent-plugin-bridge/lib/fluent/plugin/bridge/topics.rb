# frozen_string_literal: true

require 'fluent/plugin/bridge/kafka_error'

module Fluent
  module Plugin
    module Bridge
      # The topics that a producer writes to. The brokers are asked about each before its first
      # message: a message for a topic that does not exist would wait half a minute in librdkafka
      # (topic.metadata.propagation.max.ms), and then fail the transaction that it stands in.
      class Topics
        # Seconds in which a topic that did not exist is not asked for again.
        REFUSED_FOR = 10
        # Seconds after which the number of partitions is asked for again.
        COUNTED_FOR = 300
        # Seconds in which brokers that create topics have created one.
        CREATION = 2
        # Seconds to wait for brokers, and for one answer.
        PATIENCE = 10
        ANSWER = 1
        # Offsets in rd_kafka_metadata_t and rd_kafka_metadata_topic_t.
        TOPICS = 24
        PARTITION_COUNT = 8
        ERROR = 24
        private_constant :REFUSED_FOR, :COUNTED_FOR, :CREATION, :PATIENCE, :ANSWER, :TOPICS, :PARTITION_COUNT, :ERROR

        Topic = Struct.new(:handle, :partitions, :code, :asked_at)
        private_constant :Topic

        # @return [Float, nil] the monotonic time after which nothing is waited for
        attr_writer :give_up_at

        # @param client [FFI::Pointer] the producer, a rd_kafka_t
        # @param log [ClientLog] what the client reports
        # @param serve [#call] serves the client's events
        def initialize(client, log, serve)
          @client = client
          @log = log
          @serve = serve
          @topics = {}
          @give_up_at = nil
        end

        # @param name [String] the topic
        # @return [FFI::Pointer] its rd_kafka_topic_t, of this producer only
        # @raise [KafkaError] it does not exist or may not be written (`topic?`), or no broker answered
        def handle(name)
          topic = @topics[name] ||= create(name)
          ask(name, topic) if topic.asked_at.nil? || (topic.code && elapsed(topic) > REFUSED_FOR)
          raise KafkaError.new("Kafka topic #{name}", topic.code) if topic.code

          topic.handle
        end

        # @param name [String] the topic
        # @param number [Integer] the partition that is looked for, if there is one
        # @return [Integer] how many partitions it has
        # @raise [KafkaError] as {#handle}
        def partitions(name, number = 0)
          handle(name)
          topic = @topics.fetch(name)
          ask(name, topic) if elapsed(topic) > (number < topic.partitions ? COUNTED_FOR : REFUSED_FOR)
          topic.partitions
        end

        # Lets the topic be asked about again, after messages failed for its sake.
        #
        # @param name [String] the topic
        def doubt(name)
          @topics[name]&.asked_at = nil
        end

        # Gives the handles back; before the client is destroyed.
        def close
          @topics.each_value { |topic| Librdkafka.rd_kafka_topic_destroy(topic.handle) }
          @topics.clear
        end

        private

        def create(name)
          handle = Librdkafka.rd_kafka_topic_new(@client, name, nil)
          raise KafkaError.new("Kafka topic #{name}", Librdkafka::ERR_INVALID_TOPIC_EXCEPTION) if handle.null?

          Topic.new(handle)
        end

        def ask(name, topic)
          deadline = now + CREATION
          loop do
            topic.partitions, code = answer(name, topic.handle)
            topic.code = code.zero? ? nil : code
            break if code != Librdkafka::ERR_UNKNOWN_TOPIC_OR_PART && code != Librdkafka::ERR_LEADER_NOT_AVAILABLE
            break if now > deadline

            sleep 0.1
          end
          topic.asked_at = now
        end

        # Brokers that are not there, and a password that is wrong, are found out here as well: with a
        # clear error, before any message waits for them.
        def answer(name, handle)
          @log.forget
          deadline = [now + PATIENCE, @give_up_at].compact.min
          pointer = FFI::MemoryPointer.new(:pointer)
          loop do
            code = Librdkafka.rd_kafka_metadata(@client, 0, handle, pointer, ANSWER * 1000)
            @serve.call
            return read(pointer.read_pointer) if code.zero?
            raise @log.last_error if @log.last_error&.authentication?
            raise @log.last_error || KafkaError.new("Kafka topic #{name}", code) if now > deadline
          end
        end

        def read(metadata)
          topic = metadata.get_pointer(TOPICS)
          [topic.get_int(PARTITION_COUNT), topic.get_int(ERROR)]
        ensure
          Librdkafka.rd_kafka_metadata_destroy(metadata)
        end

        def elapsed(topic)
          now - topic.asked_at
        end

        def now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end
      end
    end
  end
end
