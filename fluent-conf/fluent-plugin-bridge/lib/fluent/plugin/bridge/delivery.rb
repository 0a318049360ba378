# frozen_string_literal: true

require 'fluent/plugin/bridge/kafka_error'
require 'fluent/plugin/bridge/partitions'
require 'fluent/plugin/bridge/producer'

module Fluent
  module Plugin
    module Bridge
      # When the offsets of a batch are committed. Both kinds have a producer of their own, because a producer has
      # one transaction at a time, and because a flush waits for all that was produced.
      module Delivery
        # Offsets and results in one Kafka transaction: a read-committed reader sees both, or neither.
        class ExactlyOnce
          PATIENCE = 5.0 # seconds for which the coordinator is waited for, and a shutdown with it
          private_constant :PATIENCE

          # @param options [Hash{String => Object}] settings of librdkafka, a transactional.id among them
          # @param log [Fluent::Log]
          def initialize(options, log:)
            @options = options
            @log = log
            @producer = nil
          end

          # @return [Producer, nil] the producer; there is one after {#ready}
          attr_reader :producer

          # Sees to it that there is a producer, and that its predecessor's transaction has been ended.
          #
          # @raise [KafkaError]
          def ready
            return if @producer

            @producer = Producer.new(@options, log: @log)
            @producer.init_transactions(PATIENCE)
          rescue StandardError
            close
            raise
          end

          # @raise [KafkaError]
          def begin
            @producer.begin_transaction
          end

          # @param offsets [Hash{Array(String, Integer) => Integer}] by topic and partition
          # @param metadata [GroupMetadata] who read it
          # @raise [KafkaError] nothing of it takes effect, or nobody knows: the committed offsets tell
          def complete(_consumer, offsets, metadata)
            Partitions.list(offsets) { |list| @producer.send_offsets(list, metadata.pointer) }
            @producer.commit_transaction
          end

          # Ends the transaction that was begun. A producer that cannot do that is replaced, and the next one
          # ends it in its place.
          def abort
            @producer&.abort_transaction
          rescue StandardError => e
            @log.debug('transaction not aborted, the producer is replaced', error: e.message)
            close
          end

          def close
            producer = @producer
            @producer = nil
            producer&.close
          end
        end

        # Results are delivered, then offsets are committed.
        class AtLeastOnce
          # @param options [Hash{String => Object}] settings of librdkafka
          # @param log [Fluent::Log]
          def initialize(options, log:)
            @options = options
            @log = log
            @producer = nil
          end

          # @return [Producer, nil] the producer; there is one after {#ready}
          attr_reader :producer

          def ready
            @producer = Producer.new(@options, log: @log) if @producer.nil?
          end

          def begin; end

          # @param consumer [Consumer] who read it
          # @param offsets [Hash{Array(String, Integer) => Integer}] by topic and partition
          # @raise [DeliveryFailed, KafkaError] offsets are not committed
          def complete(consumer, offsets, _metadata)
            @producer.flush
            consumer.commit(offsets)
          end

          # What was produced goes out all the same, once more when the batch comes again.
          def abort
            close if @producer&.failed?
          end

          def close
            producer = @producer
            @producer = nil
            producer&.close
          end
        end
      end
    end
  end
end
