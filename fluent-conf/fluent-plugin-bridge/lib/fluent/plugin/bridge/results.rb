# frozen_string_literal: true

require 'fluent/event'
require 'fluent/event_router'
require 'fluent/plugin/bridge/sidecar_error'
require 'fluent/plugin/bridge/unit_of_work'

module Fluent
  module Plugin
    module Bridge
      # Emits what came back from the sidecar.
      class Results
        OutputError = Fluent::EventRouter::Pipeline::OutputError
        private_constant :OutputError

        # @param streams [Array<::Bridge::Rpc::V1::Stream>] of one tag
        # @return [Fluent::MessagePackEventStream] their events, decoded by who looks at them
        def self.joined(streams)
          counts = streams.map(&:count)
          # A buffer changes the encoding of what it is given (memory_chunk.rb, concat), and protobuf's strings are frozen.
          entries = streams.size == 1 ? streams[0].entries.dup : streams.map(&:entries).join
          # 0 means not known, and then those who want to know decode all (event.rb, MessagePackEventStream#size).
          Fluent::MessagePackEventStream.new(entries, nil, counts.include?(0) ? 0 : counts.sum)
        end

        # @param router [Fluent::EventRouter] the plugin's
        # @param where [String] where results go, for messages
        def initialize(router, where)
          @router = router
          @where = where
        end

        # @param streams [Array<::Bridge::Rpc::V1::Stream>]
        # @raise [NoDestination] no output takes one of them: Fluentd would drop it (match.rb, NoMatchMatch)
        def check(streams)
          return unless @router.respond_to?(:match) # a test driver's takes everything

          streams.each do |stream|
            next unless output(stream.tag).equal?(@router.default_collector)

            tag = stream.tag
            raise NoDestination, "the sidecar gives #{stream.count} events the tag #{tag}, and no <match> of #{@where} takes them: " \
                                 "add a <match #{stream.error ? 'error.**' : tag}>"
          end
        end

        # Emits streams under their tags, those of one tag as one.
        #
        # @param streams [Array<::Bridge::Rpc::V1::Stream>]
        # @raise [StandardError] what an output raised
        def emit(streams)
          streams.group_by(&:tag).each do |tag, same|
            # Tags are UTF-8 in Fluentd, bytes in the contract.
            emit_stream(String.new(tag, encoding: Encoding::UTF_8), self.class.joined(same))
          end
        end

        private

        def output(tag)
          collector = @router.match(tag)
          return collector unless collector.is_a?(Fluent::EventRouter::Pipeline)

          collector.instance_variable_get(:@output) # there is no reader; filters alone are no destination
        end

        # As EventRouter#emit_stream, but that one also counts the events as those of the input whose thread this is.
        def emit_stream(tag, stream)
          return @router.emit_stream(tag, stream) unless @router.respond_to?(:match)

          @router.match(tag).emit_events(tag, stream)
        rescue OutputError => e
          failed(tag, e.processed_es, e.internal_error)
        rescue StandardError => e
          failed(tag, stream, e)
        end

        def failed(tag, stream, error)
          raise error if UnitOfWork.current # an @ERROR label may not take what must come again

          @router.emit_error_handler.handle_emits_error(tag, stream, error)
        end
      end
    end
  end
end
